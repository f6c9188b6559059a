//! The builder's contract.

use super::Case;

pub const CASES: &[Case] = &[
    Case {
        number: 7,
        name: "multiple-outputs",
        covers: "references between outputs, circles",
        tests: &[
            "tests/build.rs::outputs_refer_to_themselves_and_to_each_other",
            "tests/build.rs::outputs_in_a_circle_are_refused",
            "tests/nix_functional/contract.rs::environments_and_files_are_the_same",
            "tests/nix_functional/refusals.rs::outputs_that_are_not_what_they_should_be",
        ],
        left_out: "",
    },
    Case {
        number: 8,
        name: "placeholders",
        covers: "placeholders in arguments and environment",
        tests: &[
            "tests/nix.rs::derivations_and_their_records",
            "tests/build.rs::outputs_refer_to_themselves_and_to_each_other",
        ],
        left_out: "",
    },
    Case {
        number: 9,
        name: "pass-as-file",
        covers: "name and content of the files",
        tests: &[
            "tests/build.rs::attributes_are_passed_as_files_and_as_json",
            "tests/nix.rs::stock_nix_builds_our_derivations_to_the_same_paths",
        ],
        left_out: "",
    },
    Case {
        number: 10,
        name: "structured-attrs",
        covers: "the files that a builder finds",
        tests: &[
            "tests/build.rs::attributes_are_passed_as_files_and_as_json",
            "tests/nix_functional/contract.rs::structured_attributes_are_the_same",
        ],
        left_out: "",
    },
    Case {
        number: 11,
        name: "export-graph",
        covers: "files of graphs, and graphs as attributes",
        tests: &["tests/nix_functional/contract.rs::graphs_are_the_same"],
        left_out: "",
    },
    Case {
        number: 12,
        name: "fixed",
        covers: "every hash, right and wrong; two with one output; references",
        tests: &[
            "tests/nix_functional/contract.rs::fixed_outputs_are_the_same_in_all_forms",
            "tests/nix_functional/refusals.rs::outputs_that_are_not_what_they_should_be",
        ],
        left_out: "",
    },
    Case {
        number: 13,
        name: "fixed-slow-vs-bad",
        covers: "what fails beside a sibling with the same path harms nothing",
        tests: &["tests/nix_functional/refusals.rs::a_fixed_output_that_fails_leaves_its_sibling_alone"],
        left_out: "",
    },
    Case {
        number: 14,
        name: "check",
        covers: "equal and different outputs; exit codes, alone and combined",
        tests: &[
            "tests/check.rs::what_comes_out_the_same_is_proved_once",
            "tests/check.rs::the_date_is_caught",
            "tests/nix_functional/refusals.rs::what_comes_out_differently_is_refused_alike",
        ],
        left_out: "",
    },
    Case {
        number: 15,
        name: "check-refs",
        covers: "allowed and disallowed references",
        tests: &["tests/nix_functional/refusals.rs::references_that_are_not_allowed"],
        left_out: "",
    },
    Case {
        number: 16,
        name: "check-reqs",
        covers: "allowed and disallowed requisites, checks of single outputs",
        tests: &[
            "tests/nix_functional/refusals.rs::requisites_that_are_not_allowed",
            "tests/nix_functional/refusals.rs::checks_of_single_outputs",
        ],
        left_out: "",
    },
    Case {
        number: 17,
        name: "derivation-advanced-attributes",
        covers: "each attribute gives the same derivation",
        tests: &["tests/nix.rs::derivations_and_their_records"],
        left_out: "",
    },
    Case {
        number: 29,
        name: "output-normalization",
        covers: "modes and times of what is registered",
        tests: &["store/src/local/register.rs::a_registered_tree_is_canonical_and_known_to_another_process"],
        left_out: "",
    },
    Case {
        number: 30,
        name: "parallel",
        covers: "jobs overlap; two processes that want the same build it once",
        tests: &[
            "tests/nix_functional/refusals.rs::jobs_overlap_as_far_as_they_may",
            "tests/interruption.rs::two_processes_that_want_the_same_build_it_once",
        ],
        left_out: "",
    },
    Case {
        number: 31,
        name: "timeout",
        covers: "time, silence, log size; exit codes, alone and combined",
        tests: &[
            "tests/limits.rs::one_that_never_ends",
            "tests/limits.rs::one_that_is_silent",
            "tests/limits.rs::one_that_talks_without_end",
            "tests/nix_functional/refusals.rs::exit_codes_are_combined_alike",
        ],
        left_out: "",
    },
    Case {
        number: 32,
        name: "logging",
        covers: "logs of builds, failed ones too; none",
        tests: &["tests/command_line.rs::logs_are_kept", "tests/command_line.rs::what_was_never_built_has_no_log"],
        left_out: "",
    },
    Case {
        number: 33,
        name: "build-dry",
        covers: "nothing is done, all is listed",
        tests: &["tests/build.rs::a_dry_run_says_what_would_be_done_and_does_nothing"],
        left_out: "",
    },
    Case {
        number: 34,
        name: "build-delete, ca",
        covers: "outputs that were removed are built again",
        tests: &["tests/build.rs::outputs_that_were_removed_are_built_again"],
        left_out: "",
    },
    Case {
        number: 40,
        name: "linux-sandbox",
        covers: "no writes, nothing undeclared",
        tests: &["tests/limits.rs::one_that_writes_where_it_may_not", "tests/limits.rs::one_that_tries_the_network"],
        left_out: "",
    },
];
