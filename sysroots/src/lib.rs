//! Arguments: platforms, wheel tags, archives and Debian packages as trees.
