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
    Case {
        number: 21,
        name: "gc-runtime",
        covers: "a running program, an open file and an environment variable keep objects",
        tests: &[
            "store/src/local/collect/running.rs::what_runs_keeps_its_program_its_files_and_what_its_environment_names",
        ],
        left_out: "",
    },
    Case { number: 22, name: "gc-auto", covers: "", tests: &[], left_out: "not yet written" },
    Case {
        number: 23,
        name: "gc-closure",
        covers: "delete --recursive, with and without --skip-live",
        tests: &["store/src/local/collect/tests.rs::a_deletion_takes_what_is_referred_to_and_spares_what_has_to_stay"],
        left_out: "",
    },
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
        covers: "explicit deletion respects roots; what keeping outputs and derivations means, on random graphs",
        tests: &[
            "store/src/local/collect/tests.rs::an_explicit_deletion_respects_roots",
            "store/tests/nix_garbage.rs::what_lives_and_what_is_dead_is_what_nix_says",
        ],
        left_out: "",
    },
];
