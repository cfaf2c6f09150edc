//! Bytes, texts and maps in a module's memory.

use wasmi::{Caller, Error, Extern, Memory};

use super::state::State;

pub(super) type Host<'a> = Caller<'a, State>;
pub(super) type Outcome = Result<i32, Error>;

/// What a host function answers when it did what it was asked.
pub(super) const OK: i32 = 0;

/// Largest piece of memory that is taken from a module at once.
pub(super) const MAX_PIECE: usize = 64 << 20;

pub(super) fn trap(why: impl Into<String>) -> Error {
    Error::new(why.into())
}

fn memory(host: &Host<'_>) -> Result<Memory, Error> {
    host.get_export("memory").and_then(Extern::into_memory).ok_or_else(|| trap("no memory"))
}

pub(super) fn size(value: i32) -> usize {
    usize::try_from(value.cast_unsigned()).unwrap_or(usize::MAX)
}

pub(super) fn read(host: &Host<'_>, at: i32, length: i32) -> Result<Vec<u8>, Error> {
    let length = size(length);
    if length > MAX_PIECE {
        return Err(trap("out of bounds"));
    }
    let mut bytes = vec![0; length];
    memory(host)?.read(host, size(at), &mut bytes).map_err(|_| trap("out of bounds"))?;
    Ok(bytes)
}

pub(super) fn text(host: &Host<'_>, at: i32, length: i32) -> Result<String, Error> {
    Ok(String::from_utf8_lossy(&read(host, at, length)?).into_owned())
}

pub(super) fn write(host: &mut Host<'_>, at: i32, bytes: &[u8]) -> Result<(), Error> {
    memory(host)?.write(host, size(at), bytes).map_err(|_| trap("out of bounds"))
}

pub(super) fn write_number(host: &mut Host<'_>, at: i32, number: u32) -> Result<(), Error> {
    write(host, at, &number.to_le_bytes())
}

pub(super) fn length(bytes: &[u8]) -> Result<u32, Error> {
    u32::try_from(bytes.len()).map_err(|_| trap("too large"))
}

/// Gives bytes to the module, in memory that it allocates.
pub(super) fn give(host: &mut Host<'_>, bytes: &[u8], at: i32, length_at: i32) -> Outcome {
    let count = length(bytes)?;
    let allocate = host
        .get_export("proxy_on_memory_allocate")
        .or_else(|| host.get_export("malloc"))
        .and_then(Extern::into_func)
        .ok_or_else(|| trap("no proxy_on_memory_allocate"))?;
    let place = allocate.typed::<i32, i32>(&*host)?.call(&mut *host, count.cast_signed())?;
    write(host, place, bytes)?;
    write_number(host, at, place.cast_unsigned())?;
    write_number(host, length_at, count)?;
    Ok(OK)
}

pub(super) fn pack<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Result<Vec<u8>, Error> {
    let count = u32::try_from(pairs.len()).map_err(|_| trap("too many pairs"))?;
    let mut out = count.to_le_bytes().to_vec();
    for (name, value) in pairs {
        out.extend(length(name.as_ref())?.to_le_bytes());
        out.extend(length(value.as_ref())?.to_le_bytes());
    }
    for (name, value) in pairs {
        for part in [name.as_ref(), value.as_ref()] {
            out.extend(part);
            out.push(0);
        }
    }
    Ok(out)
}

pub(super) fn unpack(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let number = |at: usize| -> Option<usize> {
        let four = bytes.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(four.try_into().ok()?)).ok()
    };
    let count = number(0)?;
    let mut at = count.checked_mul(8)?.checked_add(4)?;
    let mut part = |length: usize| -> Option<Vec<u8>> {
        let bytes = bytes.get(at..at.checked_add(length)?)?.to_vec();
        at = at.checked_add(length)?.checked_add(1)?;
        Some(bytes)
    };
    let mut pairs = Vec::new();
    for i in 0..count {
        let place = i.checked_mul(8)?.checked_add(4)?;
        let (name, value) = (part(number(place)?)?, part(number(place.checked_add(4)?)?)?);
        pairs.push((String::from_utf8_lossy(&name).into_owned(), value));
    }
    Some(pairs)
}
