//! Glue between the builtin builders' contracts and the functions that do their work.
