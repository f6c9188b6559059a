//! The closure of some packages under `Depends` and `Pre-Depends`.
//!
//! The choice is simple on purpose, so that people can foresee it: of several alternatives one that is already chosen,
//! else the first that exists; of several providers one already chosen, else the first by name. For an empty machine
//! this agrees with apt.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ampoule_derivations::source::split_package;

use super::packages::{self, Alternative, MultiArch, Package};
use super::version;

/// All packages that may be chosen, each in its highest version.
pub(crate) struct Universe<'a> {
    /// By name and by the architecture whose index lists them: packages of architecture `all` appear in each.
    packages: BTreeMap<(&'a str, &'a str), &'a Package<'a>>,
    /// Who provides a name for an architecture, with the version provided.
    providers: BTreeMap<(&'a str, &'a str), BTreeMap<&'a str, Option<&'a str>>>,
    architectures: Vec<&'a str>,
    native: &'a str,
}

/// Why there is no closure.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResolveError {
    /// A package that the recipe names does not exist.
    #[error("there is no package `{package}`{}", near_text(near))]
    Unknown {
        /// The package as written.
        package: String,
        /// Names that look like it.
        near: Vec<String>,
    },
    /// A package needs something that does not exist.
    #[error("`{package}` needs `{dependency}`, which does not exist; if it is not needed here, put it in `drop`")]
    Unmet {
        /// Who needs it.
        package: String,
        /// What is needed.
        dependency: String,
    },
}

fn near_text(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; there are `{}`", near.join("`, `")) }
}

impl<'a> Universe<'a> {
    /// The packages of these indexes, given as (architecture, packages). The first architecture is the native one.
    pub(crate) fn new(native: &'a str, indexes: &[(&'a str, &'a [Package<'a>])]) -> Self {
        let mut universe =
            Self { packages: BTreeMap::new(), providers: BTreeMap::new(), architectures: Vec::new(), native };
        for (architecture, packages) in indexes {
            universe.architectures.push(architecture);
            for package in *packages {
                universe.offer(architecture, package);
            }
        }
        for ((name, architecture), package) in &universe.packages {
            for (provided, version) in packages::provisions(package.provides) {
                universe.providers.entry((provided, *architecture)).or_default().insert(name, version);
            }
        }
        universe
    }

    fn offer(&mut self, architecture: &'a str, package: &'a Package<'a>) {
        let key = (package.name, architecture);
        let better = |old: &&Package<'_>| version::compare(package.version, old.version).is_gt();
        if self.packages.get(&key).is_none_or(better) {
            self.packages.insert(key, package);
        }
    }

    /// All that the named packages need, sorted by name, then architecture; `drop` is cut out.
    pub(crate) fn closure(&self, roots: &[String], drop: &[String]) -> Result<Vec<&'a Package<'a>>, ResolveError> {
        let mut search = Search { universe: self, drop, chosen: BTreeMap::new(), queue: VecDeque::new() };
        for root in roots {
            search.queue.push_back(self.find_root(root)?);
        }
        while let Some((name, architecture)) = search.queue.pop_front() {
            search.choose(name, architecture)?;
        }
        // A package of architecture `all` may have been reached through several architectures.
        let identified = search.chosen.into_values().map(|p| ((p.name, p.architecture, p.version), p));
        Ok(identified.collect::<BTreeMap<_, _>>().into_values().collect())
    }

    fn find_root(&self, root: &str) -> Result<(&'a str, &'a str), ResolveError> {
        let (name, architecture) = split_package(root);
        let unknown = || ResolveError::Unknown { package: root.to_owned(), near: self.near(name) };
        let architecture = architecture.unwrap_or(self.native);
        let listed = self.architectures.iter().find(|listed| **listed == architecture).copied().ok_or_else(unknown)?;
        if let Some(package) = self.packages.get(&(name, listed)) {
            return Ok((package.name, listed));
        }
        let provider = self.providers.get(&(name, listed)).and_then(|providers| providers.keys().next());
        provider.map(|provider| (*provider, listed)).ok_or_else(unknown)
    }

    /// Up to five names that look like this one, nearest first.
    fn near(&self, name: &str) -> Vec<String> {
        let names: BTreeSet<&str> = self.packages.keys().map(|(name, _)| *name).collect();
        let stem = name.split('-').next().unwrap_or(name);
        let mut scored: Vec<(usize, &str)> = names
            .into_iter()
            .filter(|other| other.len().abs_diff(name.len()) <= 3 || other.starts_with(stem))
            .map(|other| (distance(name, other), other))
            .filter(|(distance, other)| *distance <= 2 + name.len() / 4 || (other.starts_with(stem) && *distance <= 8))
            .collect();
        scored.sort();
        scored.into_iter().take(5).map(|(_, other)| other.to_owned()).collect()
    }
}

/// The state of one search.
struct Search<'a, 'u> {
    universe: &'u Universe<'a>,
    drop: &'u [String],
    chosen: BTreeMap<(&'a str, &'a str), &'a Package<'a>>,
    queue: VecDeque<(&'a str, &'a str)>,
}

impl<'a> Search<'a, '_> {
    fn choose(&mut self, name: &'a str, architecture: &'a str) -> Result<(), ResolveError> {
        let universe = self.universe;
        let native = universe.native;
        let Some(mut package) = universe.packages.get(&(name, architecture)).copied() else { return Ok(()) };
        let mut key = (name, architecture);
        if package.architecture == "all" && architecture != native {
            // It is one package, whoever lists it; its dependencies are those of the native architecture.
            if let Some(listed) = universe.packages.get(&(name, native)) {
                (package, key) = (listed, (name, native));
            }
        }
        if self.chosen.insert(key, package).is_some() {
            return Ok(());
        }
        let own = if package.architecture == "all" { native } else { architecture };
        for field in [package.pre_depends, package.depends] {
            for group in packages::dependencies(field) {
                self.meet(package, own, &group, field)?;
            }
        }
        Ok(())
    }

    /// Queues what meets one dependency, unless something chosen already does or it is to be dropped.
    fn meet(
        &mut self,
        package: &Package<'_>,
        own: &'a str,
        group: &[Alternative<'a>],
        field: &str,
    ) -> Result<(), ResolveError> {
        let candidates: Vec<_> = group.iter().filter_map(|alternative| self.candidate(*alternative, own)).collect();
        if candidates.iter().any(|candidate| self.chosen.contains_key(candidate)) {
            return Ok(());
        }
        match candidates.first() {
            Some((name, architecture)) if self.is_dropped(name, architecture) => Ok(()),
            Some(candidate) => {
                self.queue.push_back(*candidate);
                Ok(())
            }
            None if group.iter().any(|alternative| self.is_dropped(alternative.name, own)) => Ok(()),
            None => Err(ResolveError::Unmet {
                package: format!("{}:{own}", package.name),
                dependency: group_text(group).unwrap_or_else(|| field.to_owned()),
            }),
        }
    }

    fn is_dropped(&self, name: &str, architecture: &str) -> bool {
        self.drop.iter().any(|dropped| {
            let (dropped_name, dropped_architecture) = split_package(dropped);
            dropped_name == name && dropped_architecture.is_none_or(|dropped| dropped == architecture)
        })
    }

    /// The package that an alternative stands for, asked for by a package of architecture `own`.
    fn candidate(&self, wanted: Alternative<'a>, own: &'a str) -> Option<(&'a str, &'a str)> {
        let universe = self.universe;
        let native = universe.native;
        let places = match wanted.architecture {
            None | Some("any") => [own, native],
            Some("native") => [native, native],
            Some(named) => [named, named],
        };
        let real = |architecture| {
            let (key, package) = universe.packages.get_key_value(&(wanted.name, architecture))?;
            let fits = wanted.relation.is_none_or(|relation| relation.holds_for(package.version));
            fits.then_some((*key, *package))
        };
        let serves_all = |package: &Package<'_>| {
            let any = wanted.architecture == Some("any") && package.multi_arch == MultiArch::Allowed;
            any || package.architecture == "all" || package.multi_arch == MultiArch::Foreign
        };
        // What serves all architectures is taken for the native one, where it runs.
        let across = real(places[1]).filter(|(_, package)| serves_all(package));
        if let Some((key, _)) = across.or_else(|| real(places[0])) {
            return Some(key);
        }
        places.into_iter().find_map(|architecture| self.provider(wanted, own, architecture))
    }

    fn provider(&self, wanted: Alternative<'a>, own: &str, architecture: &'a str) -> Option<(&'a str, &'a str)> {
        let ((_, architecture), providers) = self.universe.providers.get_key_value(&(wanted.name, architecture))?;
        let fits = |version: &Option<&str>| match (wanted.relation, version) {
            (None, _) => true,
            (Some(relation), Some(version)) => relation.holds_for(version),
            (Some(_), None) => false,
        };
        let usable = |name: &&'a str| {
            let package = self.universe.packages.get(&(*name, *architecture));
            let serves = |package: &&Package<'_>| {
                package.multi_arch == MultiArch::Foreign || package.architecture == "all" || *architecture == own
            };
            package.is_some_and(serves)
        };
        let fitting = providers.iter().filter(|(_, version)| fits(version)).map(|(name, _)| *name).filter(usable);
        let names: Vec<_> = fitting.collect();
        let chosen = names.iter().find(|name| self.chosen.contains_key(&(**name, *architecture)));
        chosen.or(names.first()).map(|name| (*name, *architecture))
    }
}

fn group_text(group: &[Alternative<'_>]) -> Option<String> {
    let names: Vec<_> = group.iter().map(|alternative| alternative.name).collect();
    (!names.is_empty()).then(|| names.join(" | "))
}

/// How many letters must be added, removed, changed or swapped with their neighbour to make one of the other.
pub(crate) fn distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes an index from lines `name version architecture; field: value; …`.
    fn index(lines: &[&str]) -> String {
        let mut text = String::new();
        for line in lines {
            let (head, fields) = line.split_once(';').unwrap_or((line, ""));
            let words: Vec<_> = head.split(' ').collect();
            let fields: String = fields.split(';').map(|field| format!("{}\n", field.trim())).collect();
            let [name, version, architecture] = words[..] else { panic!("{line}") };
            text += &format!(
                "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nFilename: pool/{name}_{version}_{architecture}.deb\n\
                 Size: 1\nSHA256: {}\n{}\n\n",
                "ab".repeat(32),
                fields.trim()
            );
        }
        text.replace("\n\n\n", "\n\n")
    }

    fn closure(indexes: &[(&str, &[&str])], roots: &[&str], drop: &[&str]) -> Result<Vec<String>, ResolveError> {
        let texts: Vec<_> = indexes.iter().map(|(architecture, lines)| (*architecture, index(lines))).collect();
        let parsed: Vec<_> = texts.iter().map(|(a, text)| (*a, packages::parse(text, "s").unwrap())).collect();
        let borrowed: Vec<_> = parsed.iter().map(|(a, packages)| (*a, packages.as_slice())).collect();
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let universe = Universe::new(indexes[0].0, &borrowed);
        let chosen = universe.closure(&strings(roots), &strings(drop))?;
        Ok(chosen.iter().map(|p| format!("{}:{}={}", p.name, p.architecture, p.version)).collect())
    }

    #[test]
    fn follows_both_kinds_and_takes_the_highest_version() {
        let amd64: &[&str] = &[
            "a 1 amd64; Pre-Depends: p (>= 2); Depends: b, missing | c",
            "b 1 amd64; Depends: a",
            "b 2~rc1 amd64; Depends: a",
            "c 1 all",
            "p 2 amd64",
            "unused 1 amd64",
        ];
        let chosen = closure(&[("amd64", amd64)], &["a"], &[]).unwrap();
        assert_eq!(chosen, ["a:amd64=1", "b:amd64=2~rc1", "c:all=1", "p:amd64=2"]);
    }

    #[test]
    fn alternatives_and_providers() {
        let amd64: &[&str] = &[
            "a 1 amd64; Depends: x | y, mail",
            "x 1 amd64",
            "y 1 amd64",
            "m2 1 amd64; Provides: mail",
            "m1 1 amd64; Provides: mail (= 3)",
            "wants-y 1 amd64; Depends: y",
            "wants-old 1 amd64; Depends: x (<< 1) | y",
            "wants-mail 1 amd64; Depends: mail (>= 2)",
        ];
        let check = |roots: &[&str], expected: &[&str]| {
            let chosen = closure(&[("amd64", amd64)], roots, &[]).unwrap();
            let names: Vec<_> = chosen.iter().map(|name| name.split(':').next().unwrap()).collect();
            assert_eq!(names, expected, "{roots:?}");
        };
        check(&["a"], &["a", "m1", "x"]);
        // Something chosen already meets a dependency.
        check(&["m2", "a"], &["a", "m2", "x"]);
        check(&["y", "a"], &["a", "m1", "y"]);
        check(&["wants-old"], &["wants-old", "y"]);
        check(&["wants-mail"], &["m1", "wants-mail"]);
        check(&["mail"], &["m1"]);
    }

    #[test]
    fn several_architectures() {
        let amd64: &[&str] = &[
            "cross 1 amd64; Depends: lib, tool",
            "lib 2 amd64",
            "tool 1 amd64; Multi-Arch: foreign",
            "py 1 amd64; Multi-Arch: allowed",
            "data 1 all; Depends: lib",
        ];
        let arm64: &[&str] = &[
            "dev 1 arm64; Depends: lib, tool, data, py:any",
            "strict 1 arm64; Depends: py",
            "lib 1 arm64",
            "tool 1 arm64; Multi-Arch: foreign",
            "py 1 arm64; Multi-Arch: allowed",
            "data 1 all; Depends: lib",
        ];
        let both: &[(&str, &[&str])] = &[("amd64", amd64), ("arm64", arm64)];
        let chosen = closure(both, &["dev:arm64"], &[]).unwrap();
        assert_eq!(chosen, ["data:all=1", "dev:arm64=1", "lib:amd64=2", "lib:arm64=1", "py:amd64=1", "tool:amd64=1"]);
        assert_eq!(closure(both, &["strict:arm64"], &[]).unwrap(), ["py:arm64=1", "strict:arm64=1"]);
        assert_eq!(closure(both, &["cross"], &[]).unwrap(), ["cross:amd64=1", "lib:amd64=2", "tool:amd64=1"]);
    }

    #[test]
    fn dropped_packages_take_along_what_only_they_need() {
        let amd64: &[&str] =
            &["a 1 amd64; Depends: b, c", "b 1 amd64; Depends: d", "c 1 amd64; Depends: gone | d2", "d 1 amd64"];
        assert_eq!(closure(&[("amd64", amd64)], &["a"], &["b", "gone"]).unwrap(), ["a:amd64=1", "c:amd64=1"]);
        assert_eq!(closure(&[("amd64", amd64)], &["a"], &["b:amd64", "c"]).unwrap(), ["a:amd64=1"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let amd64: &[&str] = &["gcc 1 amd64; Depends: nothing | void", "rustc-web 1 amd64", "rust-doc 1 amd64"];
        let error = closure(&[("amd64", amd64)], &["gcc"], &[]).unwrap_err();
        assert_eq!(error, ResolveError::Unmet { package: "gcc:amd64".into(), dependency: "nothing | void".into() });
        let error = closure(&[("amd64", amd64)], &["gc"], &[]).unwrap_err();
        assert!(error.to_string().contains("there are `gcc`"), "{error}");
        let error = closure(&[("amd64", amd64)], &["rustc-mozilla"], &[]).unwrap_err();
        assert!(error.to_string().contains("rustc-web"), "{error}");
    }

    #[test]
    fn cycles_end() {
        let amd64: &[&str] = &["a 1 amd64; Depends: b", "b 1 amd64; Depends: a"];
        assert_eq!(closure(&[("amd64", amd64)], &["a"], &[]).unwrap().len(), 2);
    }

    #[test]
    fn distances() {
        assert_eq!(distance("gcc", "gcc"), 0);
        assert_eq!(distance("gcc", "gc"), 1);
        assert_eq!(distance("abc", "acb"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
