"""For authors of DRA drivers: offer devices as ResourceSlices, and prepare those that claims were given."""
