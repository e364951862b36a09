"""Has volumes attached where pods need them."""
