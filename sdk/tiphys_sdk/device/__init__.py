"""Device plugins: write a DevicePlugin and hand it to `serve`."""
