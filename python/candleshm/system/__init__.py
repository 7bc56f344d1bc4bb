"""What every process needs of the machine: clocks, files replaced whole, private directories, printable text."""
