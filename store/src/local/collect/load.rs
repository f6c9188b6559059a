//! Reads the whole graph in a handful of queries, from one state of the database.

use rusqlite::Connection;

use super::super::LocalStore;
use super::super::failure::DatabaseError;
use super::super::query::{invalid, parse_path};
use super::Policy;
use super::graph::{Graph, ObjectNode};
use crate::path::StorePath;

/// Rows as they are in the database.
#[derive(Default)]
struct Rows {
    /// Number, base name, archive size, time of registration, deriver.
    objects: Vec<(i64, String, i64, i64, Option<String>)>,
    object_references: Vec<(i64, i64)>,
    derivations: Vec<(i64, String)>,
    derivation_references: Vec<(i64, String)>,
    /// Derivation and object.
    realisations: Vec<(String, String)>,
    /// What derivations say, if it is asked for.
    texts: Vec<(String, Vec<u8>)>,
}

impl LocalStore {
    pub(super) fn load_graph(&self, policy: &Policy<'_>) -> Result<Graph, DatabaseError> {
        let with_texts = policy.keep_outputs.is_some();
        let rows = self.database.read("load references", |connection| read_rows(connection, with_texts))?;
        build(rows, policy)
    }
}

/// Reads everything; `Database::read` sees to it that all of it is from the same moment.
fn read_rows(connection: &Connection, with_texts: bool) -> rusqlite::Result<Rows> {
    let mut rows = Rows::default();
    let mut statement = connection.prepare("SELECT id, path, nar_size, registered_at, deriver FROM objects")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        rows.objects.push((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    }
    let mut statement = connection.prepare("SELECT referrer, reference FROM object_references")?;
    rows.object_references = pairs(&mut statement)?;
    rows.derivations = pairs(&mut connection.prepare("SELECT id, path FROM derivations")?)?;
    let mut statement = connection.prepare("SELECT derivation, reference FROM derivation_references")?;
    rows.derivation_references = pairs(&mut statement)?;
    let mut statement = connection.prepare("SELECT DISTINCT derivation, path FROM realisations")?;
    rows.realisations = pairs(&mut statement)?;
    if with_texts {
        rows.texts = pairs(&mut connection.prepare("SELECT path, aterm FROM derivations")?)?;
    }
    Ok(rows)
}

fn pairs<A: rusqlite::types::FromSql, B: rusqlite::types::FromSql>(
    statement: &mut rusqlite::Statement<'_>,
) -> rusqlite::Result<Vec<(A, B)>> {
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn build(rows: Rows, policy: &Policy<'_>) -> Result<Graph, DatabaseError> {
    let mut graph = Graph::default();
    // From the database's numbers to positions; both come in ascending order.
    let mut objects: Vec<(i64, u32)> = Vec::with_capacity(rows.objects.len());
    let mut derivers = Vec::new();
    for (id, name, nar_size, registered_at, deriver) in rows.objects {
        let path = parse_path(&name)?;
        let nar_size = u64::try_from(nar_size).map_err(|_| invalid("archive size", nar_size))?;
        graph.node(path.clone()).object = Some(ObjectNode { nar_size, registered_at });
        let position = position(&graph, &path);
        objects.push((id, position));
        derivers.extend(deriver.map(|deriver| (position, deriver)));
    }
    objects.sort_unstable();
    let mut derivations: Vec<(i64, u32)> = Vec::with_capacity(rows.derivations.len());
    for (id, name) in rows.derivations {
        let path = parse_path(&name)?;
        graph.node(path.clone()).is_derivation = true;
        derivations.push((id, position(&graph, &path)));
    }
    derivations.sort_unstable();
    for (referrer, reference) in rows.object_references {
        if let (Some(referrer), Some(reference)) = (find(&objects, referrer), find(&objects, reference)) {
            graph.nodes[referrer as usize].references.push(reference);
        }
    }
    for (derivation, reference) in rows.derivation_references {
        // What it names need not be in the store.
        if let (Some(from), Some(to)) = (find(&derivations, derivation), graph.position(&parse_path(&reference)?)) {
            graph.nodes[from as usize].references.push(to);
        }
    }
    for (derivation, path) in rows.realisations {
        connect(&mut graph, policy, &parse_path(&derivation)?, &parse_path(&path)?);
    }
    for (object, deriver) in derivers {
        // Whoever registered it names a derivation that made it; that this derivation makes it whenever it is built, nobody says.
        if let (true, Some(deriver)) = (policy.keep_derivations, graph.position(&parse_path(&deriver)?)) {
            graph.nodes[object as usize].companions.push(deriver);
        }
    }
    if let Some(outputs_of) = policy.keep_outputs {
        for (name, text) in &rows.texts {
            let derivation = parse_path(name)?;
            for output in outputs_of(&derivation, text) {
                // Not the other way: an output keeps the derivation that made it, not each one that could have.
                if let (Some(derivation), Some(output)) = (graph.position(&derivation), graph.position(&output)) {
                    graph.nodes[derivation as usize].companions.push(output);
                }
            }
        }
    }
    Ok(graph)
}

/// Lets a derivation keep its output, or an output its derivation, as the policy says.
fn connect(graph: &mut Graph, policy: &Policy<'_>, derivation: &StorePath, output: &StorePath) {
    if let (Some(derivation), Some(output)) = (graph.position(derivation), graph.position(output)) {
        if policy.keep_derivations {
            graph.nodes[output as usize].companions.push(derivation);
        }
        if policy.keep_outputs.is_some() {
            graph.nodes[derivation as usize].companions.push(output);
        }
    }
}

fn position(graph: &Graph, path: &StorePath) -> u32 {
    graph.position(path).expect("the node was just made")
}

fn find(sorted: &[(i64, u32)], id: i64) -> Option<u32> {
    sorted.binary_search_by_key(&id, |(id, _)| *id).ok().map(|index| sorted[index].1)
}
