//! Binary caches and signatures.

use super::Case;

pub const CASES: &[Case] = &[
    Case {
        number: 35,
        name: "binary-cache",
        covers: "copies both ways, missing and broken files",
        tests: &[
            "tests/caches.rs::objects_go_through_directories_servers_and_homes",
            "tests/caches.rs::hostile_servers_are_refused_and_nothing_is_registered",
        ],
        left_out: "downloading once: not yet written",
    },
    Case {
        number: 36,
        name: "signing",
        covers: "keys, signatures both ways",
        tests: &[
            "tests/caches.rs::keys_sign_and_signatures_are_verified",
            "tests/caches.rs::stock_nix_reads_what_we_write_and_we_what_it_writes",
        ],
        left_out: "copies of what is not trusted: not yet written",
    },
    Case {
        number: 37,
        name: "substitute-with-invalid-ca, multiple-outputs-substitute-failure",
        covers: "tampered files register nothing",
        tests: &[
            "store/src/cache/tests.rs::content_that_is_not_the_addresss_is_refused",
            "store/src/cache/tests.rs::false_announcements_are_refused",
        ],
        left_out: "",
    },
];
