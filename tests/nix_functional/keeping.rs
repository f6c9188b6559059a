//! What keeps objects whole: sharing, verification, repair.

use super::Case;

pub const CASES: &[Case] = &[
    Case {
        number: 26,
        name: "optimise-store",
        covers: "identical files share, executable ones not with others",
        tests: &[
            "store/src/local/optimise.rs::identical_files_share_but_not_executable_ones_with_others",
            "tests/repair.rs::identical_files_share_after_optimising_or_at_once",
        ],
        left_out: "there is no directory of links to empty",
    },
    Case {
        number: 27,
        name: "repair",
        covers: "damage is found and repaired",
        tests: &[
            "tests/store.rs::damage_is_found",
            "tests/repair.rs::broken_outputs_are_built_again_inputs_first",
            "tests/repair.rs::a_file_from_elsewhere_must_have_the_registered_content",
            "store/src/local/optimise.rs::a_file_that_went_bad_is_not_spread_and_repair_parts_it_from_the_others",
        ],
        left_out: "",
    },
];
