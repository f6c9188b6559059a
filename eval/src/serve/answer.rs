//! What the store has under each address of a cache.

use std::io::{self, Write};

use ampoule_store::cache::{CacheInfo, Compression, Realisation, write_listing};
use ampoule_store::local::QueryError;
use ampoule_store::nar;
use ampoule_store::narinfo::NarInfo;
use ampoule_store::path::StorePath;
use ampoule_store::path_info::PathInfo;

use super::Service;
use super::http::Answer;

/// How archives can be had. The stronger ones would cost more time than a client saves.
const OFFERED: [Compression; 2] = [Compression::None, Compression::Zstd];

/// Answers the request for a path.
pub(super) fn answer<'a>(service: &'a Service, path: &str, query: &str) -> Answer<'a> {
    let (path, compression) = wish(service, path, query);
    match find(service, path, compression) {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::Absent,
        Err(_) => Answer::Failed,
    }
}

/// The path, and how archives are to be compressed: a client says so after a question mark or, as clients drop what stands
/// there, by a first directory.
fn wish<'p>(service: &Service, path: &'p str, query: &str) -> (&'p str, Compression) {
    for compression in OFFERED {
        let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(compression.name()));
        if let Some(rest) = rest.filter(|rest| rest.starts_with('/')) {
            return (rest, compression);
        }
        if query.split('&').any(|one| one.strip_prefix("compression=") == Some(compression.name())) {
            return (path, compression);
        }
    }
    (path, service.compression)
}

fn find<'a>(service: &'a Service, path: &str, compression: Compression) -> Result<Option<Answer<'a>>, QueryError> {
    let Some(name) = path.strip_prefix('/') else { return Ok(None) };
    if name == "nix-cache-info" {
        let info = CacheInfo { priority: service.priority, ..CacheInfo::new(service.store.store_dir()) };
        return Ok(Some(Answer::Document("text/x-nix-cache-info", info.write().into_bytes())));
    }
    if let Some(hash_part) = name.strip_suffix(".narinfo") {
        let Some(info) = info(service, hash_part)? else { return Ok(None) };
        let text = narinfo(service, info, compression)?.write(service.store.store_dir());
        return Ok(Some(Answer::Document("text/x-nix-narinfo", text.into_bytes())));
    }
    if let Some(hash_part) = name.strip_suffix(".ls") {
        return Ok(info(service, hash_part)?.map(|info| listing(service, &info)));
    }
    if let Some(file) = name.strip_prefix("nar/") {
        return archive(service, file);
    }
    if let Some(log) = name.strip_prefix("log/") {
        return Ok(self::log(service, log));
    }
    match name.strip_prefix("build-trace-v2/").and_then(|key| key.strip_suffix(".doi")) {
        Some(key) => realisation(service, key),
        None => Ok(None),
    }
}

fn info(service: &Service, hash_part: &str) -> Result<Option<PathInfo>, QueryError> {
    match service.store.path_with_hash_part(hash_part)? {
        Some(path) => service.store.path_info(&path),
        None => Ok(None),
    }
}

/// The archive's address has both hashes: the one finds the object, the other says which content was promised. What a
/// compressed archive will be like is only known when it has been made.
fn narinfo(service: &Service, info: PathInfo, compression: Compression) -> Result<NarInfo, QueryError> {
    let mut signatures = service.store.signatures(&info.path)?;
    if let Some(key) = &service.key {
        signatures.insert(key.sign(info.fingerprint(service.store.store_dir()).as_bytes()));
    }
    let plain = compression == Compression::None;
    Ok(NarInfo {
        url: format!("nar/{}-{}{}", info.path.hash_part(), info.nar_hash.to_nix32(), compression.extension()),
        compression,
        file_hash: plain.then_some(info.nar_hash),
        file_size: plain.then_some(info.nar_size),
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        references: info.references,
        deriver: info.deriver,
        signatures,
        content_address: info.content_address,
        path: info.path,
    })
}

fn archive<'a>(service: &'a Service, file: &str) -> Result<Option<Answer<'a>>, QueryError> {
    let Some((hashes, compression)) =
        OFFERED.into_iter().find_map(|one| Some((file.strip_suffix(one.extension())?, one)))
    else {
        return Ok(None);
    };
    let Some((hash_part, nar_hash)) = hashes.split_once('-') else { return Ok(None) };
    let Some(info) = info(service, hash_part)?.filter(|info| info.nar_hash.to_nix32() == nar_hash) else {
        return Ok(None);
    };
    let physical = service.store.physical_path(&info.path);
    let dump = move |sink: &mut dyn Write| nar::dump(&physical, sink).map(drop).map_err(io::Error::other);
    if compression == Compression::None {
        let tag = format!("\"{nar_hash}\"");
        return Ok(Some(Answer::Ranged("application/x-nix-nar", info.nar_size, tag, Box::new(dump))));
    }
    let body = move |sink: &mut dyn Write| compression.encode(sink, info.nar_size, dump).map(drop);
    Ok(Some(Answer::Stream("application/x-nix-nar", None, Box::new(body))))
}

fn listing<'a>(service: &'a Service, info: &PathInfo) -> Answer<'a> {
    let physical = service.store.physical_path(&info.path);
    Answer::Stream("application/json", None, Box::new(move |sink| write_listing(&physical, sink)))
}

fn log<'a>(service: &'a Service, name: &str) -> Option<Answer<'a>> {
    let derivation = StorePath::parse_base_name(name).ok().filter(StorePath::is_derivation)?;
    let mut log = service.store.open_log(&derivation).ok().flatten()?;
    let body = move |sink: &mut dyn Write| io::copy(&mut log, sink).map(drop);
    Some(Answer::Stream("text/plain; charset=utf-8", None, Box::new(body)))
}

fn realisation<'a>(service: &'a Service, key: &str) -> Result<Option<Answer<'a>>, QueryError> {
    let Some((derivation, output)) = key.split_once('/') else { return Ok(None) };
    let Ok(derivation) = StorePath::parse_base_name(derivation) else { return Ok(None) };
    let Some(path) = service.store.realisation(&derivation, output)? else { return Ok(None) };
    let found = Realisation { derivation, output: output.to_owned(), path, signatures: [].into() };
    let found = match &service.key {
        Some(key) => found.signed(key),
        None => found,
    };
    Ok(Some(Answer::Document("application/json", found.write().into_bytes())))
}
