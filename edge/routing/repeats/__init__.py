"""Memory of judged samples, so that a device does not send near copies again (docs/methods/repeats.md)."""
