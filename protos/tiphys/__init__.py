"""The published contracts: API objects, plugin protocols and Tiphys services, as protocol buffers."""
