"""Live views: the newest sample of a device's source for a person who asks, through memory alone."""
