//! The store under faults: killed at every system call, with every call failing, and with the power going off.
//!
//! Without arguments a sample is tried; with `AMPOULE_FAULTS=full` in the environment, every point, which takes minutes.
//! `AMPOULE_FAULTS=build` tries every point of one scenario.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::disallowed_methods, reason = "tests make files and processes and look at the environment")]
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test that has its own main")]

mod disk;
mod faults;
mod power;
mod record;
mod scenarios;
mod tracer;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use disk::Disk;
use faults::{Count, Fault, Saboteur};
use power::Loss;
use record::{Event, Recorder};
use scenarios::Scenario;

const ROLE: &str = "AMPOULE_FAULTS_ROLE";
/// How many points of each kind a sample has in each scenario.
const SAMPLE: usize = 5;
/// How many random losses are tried at each moment.
const RANDOM_LOSSES: u64 = 6;

fn main() -> ExitCode {
    if let Ok(role) = env::var(ROLE) {
        return play(&role);
    }
    if env::args().any(|argument| argument == "--list") {
        println!("faults: test");
        return ExitCode::SUCCESS;
    }
    let mode = env::var("AMPOULE_FAULTS").unwrap_or_default();
    let (mut tried, mut failures) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for scenario in scenarios::ALL {
        if mode.is_empty() || mode == "full" || mode == scenario.name {
            let trial = Trial::new(scenario);
            let (points, failed) = trial.run(!mode.is_empty());
            println!("{}: {} points, {} failed", scenario.name, points.len(), failed.len());
            points.iter().for_each(|point| *tried.entry(point.kind()).or_default() += 1);
            failures.extend(failed);
        }
    }
    tried.iter().for_each(|(kind, points)| println!("{kind}: {points} points"));
    let tried: usize = tried.values().sum();
    println!("{tried} points tried, {} failed", failures.len());
    failures.iter().take(12).for_each(|failure| eprintln!("FAILED {failure}"));
    // Nothing tried is nothing shown: the name of a scenario may be wrong.
    if failures.is_empty() && tried > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the traced program does: `ROLE` is `once` or `twice`, the arguments are a scenario, a home, sources.
fn play(role: &str) -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let scenario = scenarios::ALL.iter().find(|scenario| scenario.name == arguments[1]).unwrap();
    let (home, sources) = (Path::new(&arguments[2]), Path::new(&arguments[3]));
    tracer::begin();
    let mut say = |line| println!("{line}");
    let result = match role {
        "once" => scenario.perform(home, sources, &mut say),
        _ => scenario.persist(home, sources, &mut say),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", scenarios::chain(&*error));
            ExitCode::from(3)
        }
    }
}

/// One place where one thing goes wrong.
#[derive(Debug, Clone, Copy)]
enum Point {
    Fault(Fault, usize),
    /// After so many events.
    Power(usize, Loss),
}

impl Point {
    /// What goes wrong, for people.
    const fn kind(self) -> &'static str {
        match self {
            Self::Fault(fault, _) => fault.kind(),
            Self::Power(..) => "power loss",
        }
    }
}

/// A scenario with everything that can happen to it.
struct Trial {
    scenario: &'static Scenario,
    directory: tempfile::TempDir,
    before: Disk,
    events: Vec<Event>,
    count: Count,
}

impl Trial {
    fn new(scenario: &'static Scenario) -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let top = directory.path().join("before");
        fs::create_dir(&top).unwrap();
        scenario.prepare(&top.join("home"), &directory.path().join("sources"));
        let before = Disk::read(&top);
        let mut trial = Self { scenario, directory, before, events: Vec::new(), count: Count::default() };
        let top = trial.fresh("count");
        let mut count = Count::default();
        let ended = tracer::run(&mut trial.program("once", &top), &mut count);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        trial.count = count;
        trial.events = trial.record();
        trial
    }

    fn record(&self) -> Vec<Event> {
        let top = self.fresh("record");
        let mut recorder = Recorder::new(&top, &self.before);
        let ended = tracer::run(&mut self.program("once", &top), &mut recorder);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        recorder.events
    }

    /// A directory with the state before.
    fn fresh(&self, name: &str) -> PathBuf {
        let top = self.directory.path().join(name);
        let _ = fs::remove_dir_all(&top);
        self.before.write(&top);
        top
    }

    fn sources(&self) -> PathBuf {
        self.directory.path().join("sources")
    }

    fn program(&self, role: &str, top: &Path) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .arg(self.scenario.name)
            .arg(top.join("home"))
            .arg(self.sources())
            .env(ROLE, role)
            .env("RUST_BACKTRACE", "0")
            .env("RAYON_NUM_THREADS", "1");
        command
    }

    /// Tries the points on two threads.
    fn run(&self, is_full: bool) -> (Vec<Point>, Vec<String>) {
        let points = self.points(is_full);
        let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let (points, next, failures) = (&points, &next, &failures);
                scope.spawn(move || {
                    while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(failure) = self.attempt(*point, &worker.to_string()) {
                            failures.lock().unwrap().push(format!("{} {point:?}: {failure}", self.scenario.name));
                        }
                    }
                });
            }
        });
        (points, failures.into_inner().unwrap())
    }

    fn points(&self, is_full: bool) -> Vec<Point> {
        let mut points = Vec::new();
        for (fault, count) in Fault::ALL.into_iter().zip(self.count.0) {
            points.extend(sample((0..count).map(|number| Point::Fault(fault, number)).collect(), is_full));
        }
        let mut power = Vec::new();
        for moment in 0..=self.events.len() {
            let is_settled = power::changes(&self.events, moment).iter().all(|(_, durable)| *durable);
            power.push(Point::Power(moment, Loss::Nothing));
            if !is_settled {
                let losses = [Loss::All, Loss::Data, Loss::DataButLengths, Loss::Metadata];
                let seeds = (0..RANDOM_LOSSES).map(|seed| seed * 1000 + moment as u64);
                let chances = seeds.flat_map(|seed| [Loss::Tail(seed), Loss::Random(seed)]);
                power.extend(losses.into_iter().chain(chances).map(|loss| Point::Power(moment, loss)));
            }
        }
        points.extend(sample(power, is_full));
        points
    }

    fn attempt(&self, point: Point, worker: &str) -> Result<(), String> {
        let (top, said) = match point {
            Point::Fault(fault, number) => self.with_fault(fault, number, worker)?,
            Point::Power(moment, loss) => self.without_power(moment, loss, worker),
        };
        self.scenario.check(&top.join("home"), &self.sources(), &said)
    }

    fn with_fault(&self, fault: Fault, number: usize, worker: &str) -> Result<(PathBuf, String), String> {
        let top = self.fresh(worker);
        let role = if matches!(fault, Fault::Kill | Fault::FullFromNow) { "once" } else { "twice" };
        let mut saboteur = Saboteur::new(fault, number);
        let ended = tracer::run(&mut self.program(role, &top), &mut saboteur);
        let is_expected = match (fault, ended.code) {
            // With several threads the number of calls varies: the one to be killed at may not come.
            (Fault::Kill, code) => code.is_none() || (code == Some(0) && !saboteur.has_struck()),
            (_, Some(0)) => true,
            (Fault::FullFromNow, Some(3)) => true,
            _ => false,
        };
        if is_expected {
            Ok((top, ended.stdout))
        } else {
            Err(format!("ended with {:?}: {}", ended.code, ended.stderr))
        }
    }

    fn without_power(&self, moment: usize, loss: Loss, worker: &str) -> (PathBuf, String) {
        let changes = power::changes(&self.events, moment);
        let top = self.directory.path().join(worker);
        let _ = fs::remove_dir_all(&top);
        power::after_loss(&self.before, &changes, loss).write(&top);
        let said = self.events[..moment].iter().filter_map(|event| match event {
            Event::Said(text) => Some(text.as_str()),
            _ => None,
        });
        (top, said.collect())
    }
}

/// Some of the points, spread evenly, unless all are wanted.
fn sample(points: Vec<Point>, is_full: bool) -> Vec<Point> {
    let stride = if is_full { 1 } else { points.len().div_ceil(SAMPLE).max(1) };
    points.into_iter().skip(stride / 2).step_by(stride).collect()
}
