//! Application: applies derivations to their inputs, from recipes to proved store objects.
//!
//! - [`lang`]: recipes become an [`Evaluation`](lang::Evaluation), targets by [`Label`](lang::Label) and the derivations they need;
//! - [`sources`]: what recipes take from outside, resolved into the lock and fetched through the machine's own clients' configuration;
//! - [`realise`]: a [`Realiser`](realise::Realiser) plans what has to be done and does it: fetches, builds, builds again, compares;
//! - [`check`]: what a rebuild varies, who is to blame for a difference, and what is known of an output;
//! - [`audit`]: what is known of everything that targets are made of, as a record and a page; [`difference`]: in what trees differ;
//! - [`caches`]: binary caches over the network and this machine's settings of them; [`serve`] is one for others;
//! - [`sandbox`]: an [`Engine`](sandbox::Engine) runs one [`Spec`](sandbox::Spec), and nothing runs outside of one;
//! - [`builtins`]: the builders that are functions of this program; they run in the sandbox too;
//! - [`reporter`]: what work says of itself, and [`terminal`] how people see it; [`cli`] is the command line.
//!
//! **Effects**: `lang::directory` reads recipes; `sources` uses the network and clients' configuration;
//! `caches` and `serve` the network; `realise` drives the store;
//! `sandbox` makes processes; `difference`, `terminal` and `cli` read and write for people. Evaluation and planning are functions.
//!
//! **Uses**: `store`, `derivations`, `sysroots`.
//!
//! **Invariants**: evaluation gives the same derivations everywhere. No recipe's code runs outside of a sandbox or with a network.
//! Outputs are read when every process of their build is dead. A failed build is an outcome, not an error of the program.
//!
//! **Not here**: formats, and what an archive or a wheel must be: rooms to the left know.
//!
//! Start reading at [`realise`].
//!
//! ```
//! use ampoule_derivations::lock::Lock;
//! use ampoule_eval::lang::{Inputs, MemoryLoader, Mode, Tables};
//! use ampoule_store::path::StoreDir;
//!
//! let recipe = r#"derivation(name = "hello", builder = "/bin/sh", system = "x86_64-linux")"#;
//! let (loader, lock, store_dir, tables) =
//!     (MemoryLoader::new([("BUILD.star", recipe)]), Lock::default(), StoreDir::default(), Tables::default());
//! let inputs = Inputs { loader: &loader, lock: &lock, store_dir: &store_dir, mode: Mode::Build, tables: &tables };
//! let evaluation = inputs.evaluate(&["//:hello".parse()?])?;
//! assert_eq!(evaluation.derivations.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod audit;
pub mod builtins;
pub mod caches;
pub mod check;
pub mod cli;
pub mod difference;
pub mod lang;
pub mod realise;
pub mod reporter;
pub mod sandbox;
pub mod serve;
pub mod sources;
pub mod terminal;
