//! Makes derivations' outputs valid: finds, fetches or builds them, and proves them by building again.
mod log;
mod schedule;
mod structured_attributes;
