"""Code that devices and the service share: samples, calibration, bundles, the wire and the diffusion core."""
