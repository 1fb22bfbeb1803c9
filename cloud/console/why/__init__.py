"""One verdict in detail: pictures, maps, traces and opinions."""
