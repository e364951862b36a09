"""What stands in the cells of a table's rows, one module for each family of kinds."""
