"""What lies in the store unreadable to those who steal it: keys, and who uses them for which resources."""
