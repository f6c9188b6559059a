//! The recipe library, embedded: rules in Starlark and the programs that their derivations run.

/// Every file of the prelude, by name. The `.star` ones are what recipes load as `@prelude//:<name>`.
pub const FILES: &[(&str, &str)] = &[
    ("build_wheel.py", include_str!("../prelude/build_wheel.py")),
    ("debian.star", include_str!("../prelude/debian.star")),
    ("fetch.star", include_str!("../prelude/fetch.star")),
    ("import_test.py", include_str!("../prelude/import_test.py")),
    ("matrix.star", include_str!("../prelude/matrix.star")),
    ("pypi.star", include_str!("../prelude/pypi.star")),
    ("sysroot.star", include_str!("../prelude/sysroot.star")),
    ("wheel.star", include_str!("../prelude/wheel.star")),
];
