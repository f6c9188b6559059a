//! The texts that stand for output paths which are not known yet: a slash and 52 base-32 digits.

use ampoule_store::hash::Sha256Digest;
use ampoule_store::path::StorePath;

use crate::derivation::output_path_name;

/// What stands for a derivation's own output, in its arguments and environment: Nix's `placeholder`.
#[must_use]
pub fn output(output: &str) -> String {
    render(&format!("nix-output:{output}"))
}

/// What stands for an output of another derivation, at `derivation`, whose path follows from what it builds.
#[must_use]
pub fn upstream(derivation: &StorePath, output: &str) -> String {
    let name = derivation.derivation_name().unwrap_or_else(|| derivation.name());
    let path_name = output_path_name(name, output);
    render(&["nix-upstream-output:", derivation.hash_part(), ":", &path_name].concat())
}

fn render(text: &str) -> String {
    ["/", &Sha256Digest::of(text.as_bytes()).to_nix32()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_nixs() {
        assert_eq!(output("out"), "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9");
        assert_eq!(output("dev"), "/02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz");
        // Made with Nix 2.8 and `ca-derivations`.
        let derivation: StorePath = "wfv20rdkkmmdda17429wkh3l15cp2kfy-d.drv".parse().unwrap();
        assert_eq!(upstream(&derivation, "out"), "/01vfhdz0wlgridpc5sng2r1kndlzh8ji8px3vnnakw6wf9h7kwzk");
        assert_eq!(upstream(&derivation, "dev"), "/1zahmk82vb6yvxbv9c95cnqbqk22wkn9mvx45jk5xsjimvp0za6p");
    }
}
