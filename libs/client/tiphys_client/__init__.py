"""The client of the API server: transport, reflector, informer, work queue, controller frame, leader election."""
