"""The library for C and C++, as it is installed with the package: headers, shared library, and what finds them."""
