//! What is deleted, and what is not.

use super::Case;

pub const CASES: &[Case] = &[
    Case {
        number: 18,
        name: "gc",
        covers: "live and dead, roots, leftovers; the store can be emptied",
        tests: &[
            "tests/garbage.rs::named_roots_keep_and_the_rest_goes",
            "store/src/local/collect/tests.rs::what_was_never_registered_goes",
        ],
        left_out: "",
    },
    Case {
        number: 19,
        name: "gc-concurrent",
        covers: "builds and collections at once",
        tests: &["tests/garbage.rs::collecting_beside_builds_loses_nothing"],
        left_out: "",
    },
    Case {
        number: 20,
        name: "gc-non-blocking",
        covers: "what is needed again during a collection is spared",
        tests: &["store/src/local/collect/tests.rs::what_is_needed_again_during_a_collection_is_spared"],
        left_out: "",
    },
    Case { number: 21, name: "gc-runtime", covers: "", tests: &[], left_out: "not yet written" },
    Case { number: 22, name: "gc-auto", covers: "", tests: &[], left_out: "not yet written" },
    Case { number: 23, name: "gc-closure", covers: "", tests: &[], left_out: "not yet written" },
    Case {
        number: 24,
        name: "selfref-gc",
        covers: "objects that refer to themselves or each other",
        tests: &["store/src/local/collect/tests.rs::circles_and_trees_go"],
        left_out: "",
    },
    Case {
        number: 25,
        name: "delete-no-keep",
        covers: "explicit deletion respects roots",
        tests: &["store/src/local/collect/tests.rs::an_explicit_deletion_respects_roots"],
        left_out: "",
    },
];
