"""CSI drivers of Tiphys and their companion process."""
