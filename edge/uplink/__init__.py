"""The way to the cloud and back: who the device is, the connection, what goes over it, and what comes back."""
