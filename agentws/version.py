"""The version of this package, read by the build and told to every client."""

__all__ = ["VERSION"]

VERSION = "0.1.0"
