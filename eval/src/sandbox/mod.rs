//! The embedded engine: a sandbox spec, the operations it becomes, and their execution.
