//! What has to be done for a set of goals: a function of the derivations and of what the store has.

use std::collections::{BTreeMap, BTreeSet};

use std::sync::Arc;

use ampoule_derivations::derivation::Derivation;
use ampoule_store::path::StorePath;

use super::schedule::{Class, Task};

/// What is known of a derivation before anything is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Its outputs' store paths, if all of them are valid.
    pub outputs: Option<BTreeMap<String, StorePath>>,
    /// Whether its outputs need no proof any more: they have one, or their hash is stated beforehand.
    pub proved: bool,
    /// Whether the outputs came from a cache just now.
    pub substituted: bool,
}

impl Status {
    /// Adds what became of one output; without it the derivation has no outputs yet.
    pub(super) fn add_output(&mut self, name: &str, found: Option<StorePath>) {
        match (&mut self.outputs, found) {
            (Some(outputs), Some(found)) => drop(outputs.insert(name.to_owned(), found)),
            _ => self.outputs = None,
        }
    }
}

/// How much of a derivation is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// That there is a proof.
    Proof,
    /// Valid outputs, and with a check a proof too.
    Outputs,
}

/// Work on one derivation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The derivation.
    pub derivation: StorePath,
    /// Whether its outputs have to be made; otherwise they are valid and only lack a proof.
    pub make: bool,
    /// Whether it has to be built a second time.
    pub check: bool,
}

/// All work, in an order in which everything comes after what it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The work.
    pub steps: Vec<Step>,
    /// For each step, the positions of the steps it needs.
    pub(super) tasks: Vec<TaskShape>,
    /// Derivations whose outputs are valid already.
    pub found: BTreeMap<StorePath, Status>,
}

/// The scheduler's view of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaskShape {
    pub(super) class: Class,
    pub(super) needs: Vec<usize>,
}

impl Plan {
    /// Derivations that have to be fetched.
    pub fn fetches(&self) -> impl Iterator<Item = &StorePath> {
        self.chosen(|step, class| step.make && class == Class::Fetch)
    }

    /// Derivations that have to be built, unless another one's result serves.
    pub fn builds(&self) -> impl Iterator<Item = &StorePath> {
        self.chosen(|step, class| step.make && class == Class::Build)
    }

    /// Derivations that have to be built a second time.
    pub fn checks(&self) -> impl Iterator<Item = &StorePath> {
        self.chosen(|step, _| step.check)
    }

    fn chosen(&self, choose: impl Fn(&Step, Class) -> bool) -> impl Iterator<Item = &StorePath> {
        let steps = self.steps.iter().zip(&self.tasks);
        steps.filter(move |(step, task)| choose(step, task.class)).map(|(step, _)| &step.derivation)
    }

    pub(super) fn tasks(&self) -> Vec<Task> {
        self.tasks.iter().map(|shape| Task { class: shape.class, needs: shape.needs.clone() }).collect()
    }
}

/// Why no plan can be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError<E> {
    /// A derivation is needed that nobody knows.
    #[error("the derivation `{0}` is needed but not known")]
    Unknown(StorePath),
    /// Derivations need one another in a circle.
    #[error("derivations need one another in a circle, among them `{0}`")]
    Cycle(StorePath),
    /// The store could not say what it has.
    #[error(transparent)]
    Status(E),
}

/// Plans the work for `goals`. `statuses` says what is known of derivations, many at a time; each is asked about once.
pub(super) fn plan<E>(
    goals: &[StorePath],
    check: bool,
    derivations: &BTreeMap<StorePath, Arc<Derivation>>,
    mut statuses: impl FnMut(&[(&StorePath, &Derivation)]) -> Result<Vec<Status>, E>,
) -> Result<Plan, PlanError<E>> {
    let mut known: BTreeMap<&StorePath, Status> = BTreeMap::new();
    let mut needs: BTreeMap<&StorePath, Need> = BTreeMap::new();
    let mut wave: BTreeMap<&StorePath, Need> = goals.iter().map(|goal| (goal, Need::Outputs)).collect();
    while !wave.is_empty() {
        let find =
            |path: &&StorePath| derivations.get_key_value(*path).ok_or_else(|| PlanError::Unknown((*path).clone()));
        let new = wave.keys().filter(|path| !known.contains_key(**path)).map(find);
        let new = new.map(|found| found.map(|(path, derivation)| (path, derivation.as_ref())));
        let new: Vec<(&StorePath, &Derivation)> = new.collect::<Result<_, _>>()?;
        let found = statuses(&new).map_err(PlanError::Status)?;
        known.extend(new.into_iter().map(|(path, _)| path).zip(found));

        let mut next: BTreeMap<&StorePath, Need> = BTreeMap::new();
        for (path, need) in wave {
            if needs.get(path).is_some_and(|before| *before >= need) {
                continue;
            }
            needs.insert(path, need);
            let inputs_need = match (work(&known[path], need, check), check) {
                (Some(_), _) => Need::Outputs,
                (None, true) => Need::Proof,
                (None, false) => continue,
            };
            for input in derivations[path].input_derivations.keys() {
                if needs.get(input).is_none_or(|before| *before < inputs_need) {
                    let wanted = next.entry(input).or_insert(inputs_need);
                    *wanted = inputs_need.max(*wanted);
                }
            }
        }
        wave = next;
    }
    order(derivations, &needs, known, check)
}

/// What has to be done about a derivation, if anything.
fn work(status: &Status, need: Need, check: bool) -> Option<(bool, bool)> {
    let check = check && !status.proved;
    let make = status.outputs.is_none() && (need == Need::Outputs || check);
    (make || check).then_some((make, check))
}

fn order<E>(
    derivations: &BTreeMap<StorePath, Arc<Derivation>>,
    needs: &BTreeMap<&StorePath, Need>,
    known: BTreeMap<&StorePath, Status>,
    check: bool,
) -> Result<Plan, PlanError<E>> {
    let mut plan = Plan::default();
    let mut position: BTreeMap<&StorePath, usize> = BTreeMap::new();
    let mut entered: BTreeSet<&StorePath> = BTreeSet::new();
    for start in needs.keys() {
        // Each derivation is met twice: on the way in, and again when its inputs are done.
        let mut pending = vec![(*start, false)];
        while let Some((path, inputs_done)) = pending.pop() {
            let Some((make, check)) = work(&known[path], needs[path], check) else { continue };
            if position.contains_key(path) {
                continue;
            }
            let inputs = derivations[path].input_derivations.keys();
            if inputs_done {
                position.insert(path, plan.steps.len());
                let class = if is_fetch(&derivations[path]) { Class::Fetch } else { Class::Build };
                let needs = inputs.filter_map(|input| position.get(input).copied()).collect();
                plan.tasks.push(TaskShape { class, needs });
                plan.steps.push(Step { derivation: path.clone(), make, check });
            } else {
                if !entered.insert(path) {
                    return Err(PlanError::Cycle(path.clone()));
                }
                pending.push((path, true));
                pending.extend(inputs.filter(|input| !position.contains_key(input)).map(|input| (input, false)));
            }
        }
    }
    plan.found = known.into_iter().filter(|(_, s)| s.outputs.is_some()).map(|(p, s)| (p.clone(), s)).collect();
    Ok(plan)
}

/// Whether the derivation's builder fetches a source.
pub(super) fn is_fetch(derivation: &Derivation) -> bool {
    derivation.builder == ampoule_derivations::builtin::FETCH
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use ampoule_derivations::derivation::{DerivationBuilder, ModuloHashes};
    use ampoule_store::content_address::{ContentAddress, Method};
    use ampoule_store::hash::{Algorithm, Sha256Digest};
    use ampoule_store::path::StoreDir;

    use super::*;

    /// source -> compiler -> program, and source -> program.
    struct Example {
        derivations: BTreeMap<StorePath, Arc<Derivation>>,
        names: BTreeMap<StorePath, &'static str>,
        goal: StorePath,
    }

    fn example() -> Example {
        let (store_dir, mut hashes) = (StoreDir::default(), ModuloHashes::new());
        let mut example = Example {
            derivations: BTreeMap::new(),
            names: BTreeMap::new(),
            goal: "00000000000000000000000000000000-x.drv".parse().unwrap(),
        };
        let mut add = |name: &'static str, builder: DerivationBuilder| {
            let (path, derivation) = builder.instantiate(&store_dir, &mut hashes).unwrap();
            example.derivations.insert(path.clone(), Arc::new(derivation));
            example.names.insert(path.clone(), name);
            path
        };
        let address = ContentAddress::flat_sha256(Sha256Digest::of(b"source"));
        let source = add(
            "source",
            DerivationBuilder::new("source", "builtin", ampoule_derivations::builtin::FETCH).fixed(address),
        );
        let floating = |name: &str| {
            DerivationBuilder::new(name, "x86_64-linux", "/bin/sh").floating(Method::Nar, Algorithm::Sha256)
        };
        let compiler = add("compiler", floating("compiler").input_derivation(source.clone(), "out"));
        let program =
            add("program", floating("program").input_derivation(source, "out").input_derivation(compiler, "out"));
        example.goal = program;
        example
    }

    /// The plan as text; `valid` and `proved` name derivations.
    fn planned(check: bool, valid: &[&str], proved: &[&str]) -> String {
        let example = example();
        let status = |path: &StorePath, derivation: &Derivation| {
            let name = example.names[path];
            let outputs = valid.contains(&name).then(|| BTreeMap::from([("out".to_owned(), path.clone())]));
            let proved = derivation.fixed_output().is_some() || proved.contains(&name);
            Ok::<_, Infallible>(Status { outputs, proved, substituted: false })
        };
        let plan = plan(std::slice::from_ref(&example.goal), check, &example.derivations, |asked| {
            asked.iter().map(|(path, derivation)| status(path, derivation)).collect()
        });
        let plan = plan.unwrap();
        let steps = plan.steps.iter().zip(&plan.tasks).map(|(step, task)| {
            let verbs =
                [(step.make, "make "), (step.check, "check ")].map(|(is, verb)| if is { verb } else { "" }).concat();
            format!("{verbs}{} {:?}", example.names[&step.derivation], task.needs)
        });
        steps.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn work_goes_inwards_as_far_as_needed() {
        let all = ["source", "compiler", "program"];
        for (valid, expected) in [
            (&[][..], "make source [], make compiler [0], make program [0, 1]"),
            (&["source"], "make compiler [], make program [0]"),
            (&["compiler", "source"], "make program []"),
            (&["compiler"], "make source [], make program [0]"),
            (&["program"], ""),
            (&all, ""),
        ] {
            assert_eq!(planned(false, valid, &[]), expected, "{valid:?}");
        }
    }

    #[test]
    fn a_check_reaches_everything_without_a_proof() {
        let all = ["source", "compiler", "program"];
        for (valid, proved, expected) in [
            (&all[..], &[][..], "check compiler [], check program [0]"),
            (&all, &["compiler"], "check program []"),
            (&all, &["program"], "check compiler []"),
            (&all, &["compiler", "program"], ""),
            // What is proved and not needed any more need not be made again.
            (&["program"], &["compiler", "program"], ""),
            (&["program"], &["program"], "make source [], make check compiler [0]"),
            (&["source"], &["compiler"], "make compiler [], make check program [0]"),
        ] {
            assert_eq!(planned(true, valid, proved), expected, "{valid:?} {proved:?}");
        }
    }

    #[test]
    fn unknown_inputs_are_an_error() {
        let mut example = example();
        let goal = example.goal.clone();
        example.derivations.retain(|path, _| *path == goal);
        let error = plan(&[goal], false, &example.derivations, |asked| {
            Ok::<_, Infallible>(asked.iter().map(|_| Status::default()).collect())
        });
        let error = error.unwrap_err();
        assert!(matches!(error, PlanError::Unknown(_)), "{error}");
    }
}
