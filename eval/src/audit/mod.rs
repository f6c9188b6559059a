//! What is known of everything that targets are made of.

mod evidence;

pub use evidence::resolved_path;
