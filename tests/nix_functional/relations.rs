//! What objects have to do with each other, and with what made them.

use super::Case;

pub const CASES: &[Case] = &[
    Case {
        number: 5,
        name: "simple",
        covers: "build, and deletion of what was built",
        tests: &["tests/store.rs::what_others_refer_to_is_not_deleted"],
        left_out: "another store directory: ours is `/nix/store` for every user",
    },
    Case {
        number: 6,
        name: "dependencies",
        covers: "closures, referrers, the tree",
        tests: &["tests/garbage.rs::objects_are_listed_and_their_references_explained"],
        left_out: "derivers and graphs: not yet written",
    },
    Case { number: 28, name: "referrers", covers: "", tests: &[], left_out: "long chains: not yet written" },
];
