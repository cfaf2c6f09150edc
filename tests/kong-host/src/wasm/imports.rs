//! The functions that a module imports. An import that is not here makes the load fail, as in Kong.

use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use wasmi::{Error, Linker};

use super::memory::{
    Host, MAX_PIECE, OK, Outcome, give, length, pack, read, size, text, trap, unpack, write, write_number,
};
use super::shared::Misuse;
use super::state::{Callout, LocalReply, Phase, Severity, State};

const NOT_FOUND: i32 = 1;
const BAD_ARGUMENT: i32 = 2;
const CAS_MISMATCH: i32 = 8;
const INTERNAL_FAILURE: i32 = 10;
const UNIMPLEMENTED: i32 = 12;

const REQUEST_HEADERS: i32 = 0;
const CALLOUT_HEADERS: i32 = 6;
const REQUEST_BODY: i32 = 0;
const CALLOUT_BODY: i32 = 4;
const VM_CONFIGURATION: i32 = 6;
const PLUGIN_CONFIGURATION: i32 = 7;

/// Most pairs of a map that Kong gives to a module, pseudo-headers counted.
const MAX_PAIRS: usize = 100;

/// Defines all of them.
pub(super) fn define(linker: &mut Linker<State>) -> Result<(), Error> {
    define_basics(linker)?;
    define_headers(linker)?;
    define_buffers_and_properties(linker)?;
    define_shared(linker)?;
    define_flow(linker)?;
    define_rest(linker)?;
    define_wasi(linker)
}

fn define_basics(linker: &mut Linker<State>) -> Result<(), Error> {
    linker.func_wrap("env", "proxy_log", |host: Host<'_>, level: i32, at: i32, len: i32| -> Outcome {
        let severity = match level {
            ..=1 => Severity::Debug,
            2 => Severity::Info,
            3 => Severity::Warn,
            4 => Severity::Error,
            _ => Severity::Crit,
        };
        let line = text(&host, at, len)?;
        host.data().log.write(severity, line);
        Ok(OK)
    })?;
    linker.func_wrap("env", "proxy_get_log_level", |mut host: Host<'_>, at: i32| -> Outcome {
        write_number(&mut host, at, 1)?;
        Ok(OK)
    })?;
    linker.func_wrap(
        "env",
        "proxy_get_current_time_nanoseconds",
        |mut host: Host<'_>, at: i32| -> Outcome {
            write(&mut host, at, &nanoseconds().to_le_bytes())?;
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_tick_period_milliseconds",
        |mut host: Host<'_>, period: i32| -> Outcome {
            let context = host.data().context;
            let known = host.data().configurations.contains_key(&context);
            if !known {
                return Err(trap("can only set tick_period in root context"));
            }
            let period = period.cast_unsigned();
            if period > 0 && host.data().ticks.get(&context).is_some_and(|p| *p > 0) {
                return Err(trap("tick_period already set"));
            }
            host.data_mut().ticks.insert(context, period);
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_effective_context",
        |mut host: Host<'_>, context: i32| -> Outcome {
            let context = context.cast_unsigned();
            let data = host.data_mut();
            if !data.requests.contains_key(&context) && !data.configurations.contains_key(&context) {
                return Ok(BAD_ARGUMENT);
            }
            data.context = context;
            Ok(OK)
        },
    )?;
    Ok(())
}

fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The pairs of a map as the module sees them.
fn pairs(state: &State, map: i32) -> Option<Vec<(String, Vec<u8>)>> {
    match map {
        REQUEST_HEADERS => {
            let request = &state.request()?.request;
            let query = request.target.find('?').and_then(|at| request.target.get(at..)).unwrap_or("");
            let path = format!("{}{query}", request.path);
            let pseudo = [
                (":path", path.as_str()),
                (":method", &request.method),
                (":authority", &request.authority),
                (":scheme", "http"),
            ];
            let pseudo = pseudo.map(|(n, v)| (n.to_owned(), v.as_bytes().to_vec()));
            let lines = request.headers.pairs().map(|(n, v)| (n.to_owned(), v.to_vec()));
            Some(pseudo.into_iter().chain(lines).collect())
        }
        CALLOUT_HEADERS => Some(state.callout_reply.headers.clone()),
        _ => None,
    }
}

fn define_headers(linker: &mut Linker<State>) -> Result<(), Error> {
    linker.func_wrap(
        "env",
        "proxy_get_header_map_pairs",
        |mut host: Host<'_>, map: i32, at: i32, len_at: i32| -> Outcome {
            let all = pairs(host.data(), map).unwrap_or_default();
            // A failed callout has a pseudo-header that can be asked for by its name alone. What is over the limit
            // is dropped without a word; the module can't tell.
            let all: Vec<_> =
                all.into_iter().filter(|(n, _)| n != ":dispatch_status").take(MAX_PAIRS).collect();
            let packed = pack(&all)?;
            give(&mut host, &packed, at, len_at)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_header_map_value",
        |mut host: Host<'_>, map: i32, key: i32, key_len: i32, at: i32, len_at: i32| -> Outcome {
            let key = text(&host, key, key_len)?;
            let all = pairs(host.data(), map).unwrap_or_default();
            match all.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(&key)) {
                Some((_, value)) => give(&mut host, &value, at, len_at),
                None => Ok(NOT_FOUND),
            }
        },
    )?;
    let change = |host: &mut Host<'_>, map: i32, name: &str, change: Change<'_>| -> Outcome {
        let Some(context) = host.data_mut().request_mut().filter(|_| map == REQUEST_HEADERS) else {
            return Ok(BAD_ARGUMENT);
        };
        if name.starts_with(':') {
            return Ok(OK);
        }
        let headers = &mut context.request.headers;
        match change {
            Change::Replace(value) => headers.replace(name, value),
            Change::Add(value) => headers.add(name, value),
            Change::Remove => headers.remove(name),
        }
        Ok(OK)
    };
    linker.func_wrap(
        "env",
        "proxy_replace_header_map_value",
        move |mut host: Host<'_>, map: i32, key: i32, key_len: i32, value: i32, value_len: i32| -> Outcome {
            let (name, value) = (text(&host, key, key_len)?, read(&host, value, value_len)?);
            change(&mut host, map, &name, Change::Replace(&value))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_add_header_map_value",
        move |mut host: Host<'_>, map: i32, key: i32, key_len: i32, value: i32, value_len: i32| -> Outcome {
            let (name, value) = (text(&host, key, key_len)?, read(&host, value, value_len)?);
            change(&mut host, map, &name, Change::Add(&value))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_remove_header_map_value",
        move |mut host: Host<'_>, map: i32, key: i32, key_len: i32| -> Outcome {
            let name = text(&host, key, key_len)?;
            change(&mut host, map, &name, Change::Remove)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_header_map_pairs",
        |mut host: Host<'_>, map: i32, at: i32, len: i32| -> Outcome {
            let Some(all) = unpack(&read(&host, at, len)?) else { return Ok(BAD_ARGUMENT) };
            let Some(context) = host.data_mut().request_mut().filter(|_| map == REQUEST_HEADERS) else {
                return Ok(BAD_ARGUMENT);
            };
            for (name, value) in all.iter().filter(|(n, _)| !n.starts_with(':')) {
                context.request.headers.replace(name, value);
            }
            Ok(OK)
        },
    )?;
    Ok(())
}

enum Change<'a> {
    Replace(&'a [u8]),
    Add(&'a [u8]),
    Remove,
}

fn define_buffers_and_properties(linker: &mut Linker<State>) -> Result<(), Error> {
    linker.func_wrap(
        "env",
        "proxy_get_buffer_bytes",
        |mut host: Host<'_>, kind: i32, start: i32, max: i32, at: i32, len_at: i32| -> Outcome {
            let state = host.data();
            let bytes = match kind {
                REQUEST_BODY => state.request().map(|c| c.request.body.clone()),
                CALLOUT_BODY => Some(state.callout_reply.body.clone()),
                VM_CONFIGURATION => Some(Vec::new()),
                PLUGIN_CONFIGURATION => state.configurations.get(&state.context).cloned(),
                _ => None,
            };
            let Some(bytes) = bytes.filter(|b| !b.is_empty()) else { return Ok(NOT_FOUND) };
            let piece: Vec<u8> = bytes.into_iter().skip(size(start)).take(size(max)).collect();
            give(&mut host, &piece, at, len_at)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_buffer_bytes",
        |_: Host<'_>, _: i32, _: i32, _: i32, _: i32, _: i32| -> Outcome { Ok(UNIMPLEMENTED) },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_property",
        |mut host: Host<'_>, path: i32, path_len: i32, at: i32, len_at: i32| -> Outcome {
            let path = text(&host, path, path_len)?.replace('\0', ".");
            host.data().touch(&path);
            match super::state::property(host.data(), &path) {
                Some(value) => give(&mut host, &value, at, len_at),
                None => Ok(NOT_FOUND),
            }
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_property",
        |mut host: Host<'_>, path: i32, path_len: i32, value: i32, value_len: i32| -> Outcome {
            let path = text(&host, path, path_len)?.replace('\0', ".");
            host.data().touch(&path);
            let value = read(&host, value, value_len)?;
            super::state::set_property(host.data_mut(), &path, &value)
                .map(|known| if known { OK } else { NOT_FOUND })
                .map_err(|why| trap(format!("could not set \"{path}\": {why}")))
        },
    )?;
    Ok(())
}

fn define_shared(linker: &mut Linker<State>) -> Result<(), Error> {
    let misuse = |m: Misuse| match m {
        Misuse::NoZone => trap("failed getting value from shm (could not resolve namespace)"),
        Misuse::TooLarge => trap("failed setting value to shm (could not write to slab)"),
    };
    linker.func_wrap(
        "env",
        "proxy_get_shared_data",
        move |mut host: Host<'_>, key: i32, key_len: i32, at: i32, len_at: i32, cas_at: i32| -> Outcome {
            let key = read(&host, key, key_len)?;
            let shared = host.data().shared.clone();
            let found = shared.lock().unwrap_or_else(PoisonError::into_inner).get(&key).map_err(misuse)?;
            let Some((value, cas)) = found else { return Ok(NOT_FOUND) };
            write_number(&mut host, cas_at, cas)?;
            give(&mut host, &value, at, len_at)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_shared_data",
        move |host: Host<'_>, key: i32, key_len: i32, value: i32, value_len: i32, cas: i32| -> Outcome {
            let (key, value) = (read(&host, key, key_len)?, read(&host, value, value_len)?);
            let shared = host.data().shared.clone();
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let done = shared.set(&key, &value, cas.cast_unsigned()).map_err(misuse)?;
            Ok(if done { OK } else { CAS_MISMATCH })
        },
    )?;
    Ok(())
}

fn define_flow(linker: &mut Linker<State>) -> Result<(), Error> {
    linker.func_wrap("env", "proxy_continue_stream", |mut host: Host<'_>, _kind: i32| -> Outcome {
        if let Some(context) = host.data_mut().request_mut() {
            context.resumed = true;
        }
        Ok(OK)
    })?;
    linker
        .func_wrap("env", "proxy_close_stream", |_: Host<'_>, _kind: i32| -> Outcome { Ok(UNIMPLEMENTED) })?;
    linker.func_wrap("env", "proxy_done", |_: Host<'_>| -> Outcome { Ok(OK) })?;
    linker.func_wrap(
        "env",
        "proxy_send_local_response",
        |mut host: Host<'_>,
         status: i32,
         _details: i32,
         _details_len: i32,
         body: i32,
         body_len: i32,
         headers: i32,
         headers_len: i32,
         _grpc: i32|
         -> Outcome {
            let body = read(&host, body, body_len)?;
            let Some(headers) = unpack(&read(&host, headers, headers_len)?) else { return Ok(BAD_ARGUMENT) };
            let Ok(status) = u16::try_from(status) else { return Ok(BAD_ARGUMENT) };
            let Some(context) = host.data_mut().request_mut() else { return Ok(BAD_ARGUMENT) };
            if context.reply.is_some() {
                return Err(trap("local response already stashed"));
            }
            context.reply = Some(LocalReply { status, headers, body });
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_http_call",
        |mut host: Host<'_>,
         upstream: i32,
         upstream_len: i32,
         headers: i32,
         headers_len: i32,
         body: i32,
         body_len: i32,
         _trailers: i32,
         _trailers_len: i32,
         timeout: i32,
         token_at: i32|
         -> Outcome {
            if matches!(host.data().phase, Phase::Start | Phase::Done) {
                return Err(trap("can only send HTTP dispatch during on_request_headers, …"));
            }
            let upstream = text(&host, upstream, upstream_len)?;
            if upstream.is_empty() || upstream.contains('/') {
                return Err(trap(format!("bad dispatch host: {upstream:?}")));
            }
            let Some(headers) = unpack(&read(&host, headers, headers_len)?) else { return Ok(BAD_ARGUMENT) };
            let body = read(&host, body, body_len)?;
            let state = host.data_mut();
            let token = state.next_token;
            state.next_token = token.wrapping_add(1);
            let Some(context) = state.request_mut() else { return Ok(INTERNAL_FAILURE) };
            context.waiting += 1;
            let timeout = timeout.cast_unsigned();
            context.callouts.push(Callout { token, upstream, headers, body, timeout });
            write_number(&mut host, token_at, token)?;
            Ok(OK)
        },
    )?;
    Ok(())
}

fn define_rest(linker: &mut Linker<State>) -> Result<(), Error> {
    linker.func_wrap(
        "env",
        "proxy_define_metric",
        |mut host: Host<'_>, _kind: i32, _name: i32, _len: i32, at: i32| -> Outcome {
            let metrics = &mut host.data_mut().metrics;
            let id = u32::try_from(metrics.len()).map_err(|_| trap("too many metrics"))?;
            metrics.push(0);
            write_number(&mut host, at, id)?;
            Ok(OK)
        },
    )?;
    linker.func_wrap("env", "proxy_get_metric", |mut host: Host<'_>, id: i32, at: i32| -> Outcome {
        let Some(value) = host.data().metrics.get(size(id)).copied() else { return Ok(NOT_FOUND) };
        write(&mut host, at, &value.to_le_bytes())?;
        Ok(OK)
    })?;
    linker.func_wrap("env", "proxy_record_metric", |mut host: Host<'_>, id: i32, value: i64| -> Outcome {
        let Some(metric) = host.data_mut().metrics.get_mut(size(id)) else { return Ok(NOT_FOUND) };
        *metric = value;
        Ok(OK)
    })?;
    linker.func_wrap("env", "proxy_increment_metric", |mut host: Host<'_>, id: i32, by: i64| -> Outcome {
        let Some(metric) = host.data_mut().metrics.get_mut(size(id)) else { return Ok(NOT_FOUND) };
        *metric = metric.wrapping_add(by);
        Ok(OK)
    })?;
    linker.func_wrap(
        "env",
        "proxy_register_shared_queue",
        |_: Host<'_>, _: i32, _: i32, _: i32| -> Outcome { Ok(UNIMPLEMENTED) },
    )?;
    linker.func_wrap(
        "env",
        "proxy_resolve_shared_queue",
        |_: Host<'_>, _: i32, _: i32, _: i32, _: i32, _: i32| -> Outcome { Ok(UNIMPLEMENTED) },
    )?;
    linker.func_wrap(
        "env",
        "proxy_dequeue_shared_queue",
        |_: Host<'_>, _: i32, _: i32, _: i32| -> Outcome { Ok(UNIMPLEMENTED) },
    )?;
    linker.func_wrap(
        "env",
        "proxy_enqueue_shared_queue",
        |_: Host<'_>, _: i32, _: i32, _: i32| -> Outcome { Ok(UNIMPLEMENTED) },
    )?;
    linker.func_wrap(
        "env",
        "proxy_call_foreign_function",
        |_: Host<'_>, _: i32, _: i32, _: i32, _: i32, _: i32, _: i32| -> Outcome { Ok(NOT_FOUND) },
    )?;
    define_grpc(linker)?;
    linker.func_wrap("env", "proxy_get_status", |_: Host<'_>, _: i32, _: i32, _: i32| -> Outcome {
        Ok(UNIMPLEMENTED)
    })?;
    Ok(())
}

/// They are there, and do nothing in Kong either.
fn define_grpc(linker: &mut Linker<State>) -> Result<(), Error> {
    type I = i32;
    linker.func_wrap(
        "env",
        "proxy_grpc_call",
        |_: Host<'_>, _: I, _: I, _: I, _: I, _: I, _: I, _: I, _: I, _: I, _: I, _: I, _: I| -> Outcome {
            Ok(UNIMPLEMENTED)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_grpc_stream",
        |_: Host<'_>, _: I, _: I, _: I, _: I, _: I, _: I, _: I, _: I, _: I| -> Outcome { Ok(UNIMPLEMENTED) },
    )?;
    linker.func_wrap("env", "proxy_grpc_send", |_: Host<'_>, _: I, _: I, _: I, _: I| -> Outcome {
        Ok(UNIMPLEMENTED)
    })?;
    linker.func_wrap("env", "proxy_grpc_cancel", |_: Host<'_>, _: I| -> Outcome { Ok(UNIMPLEMENTED) })?;
    linker.func_wrap("env", "proxy_grpc_close", |_: Host<'_>, _: I| -> Outcome { Ok(UNIMPLEMENTED) })?;
    Ok(())
}

fn define_wasi(linker: &mut Linker<State>) -> Result<(), Error> {
    const WASI: &str = "wasi_snapshot_preview1";
    linker.func_wrap(
        WASI,
        "fd_write",
        |mut host: Host<'_>, fd: i32, parts: i32, count: i32, written: i32| -> Outcome {
            let mut line = Vec::new();
            for i in 0..count.clamp(0, 64) {
                let place = parts.wrapping_add(i.wrapping_mul(8));
                let number = |host: &Host<'_>, at: i32| -> Result<i32, Error> {
                    let four: [u8; 4] = read(host, at, 4)?.try_into().map_err(|_| trap("out of bounds"))?;
                    Ok(i32::from_le_bytes(four))
                };
                let (at, len) = (number(&host, place)?, number(&host, place.wrapping_add(4))?);
                line.extend(read(&host, at, len)?);
            }
            let severity = if fd == 1 { Severity::Info } else { Severity::Error };
            host.data().log.write(severity, String::from_utf8_lossy(&line).trim_end());
            let count = length(&line)?;
            write_number(&mut host, written, count)?;
            Ok(OK)
        },
    )?;
    linker.func_wrap(WASI, "random_get", |mut host: Host<'_>, at: i32, len: i32| -> Outcome {
        use std::hash::{BuildHasher, RandomState};
        let mut bytes = Vec::new();
        while bytes.len() < size(len).min(MAX_PIECE) {
            bytes.extend(RandomState::new().hash_one(nanoseconds()).to_le_bytes());
        }
        bytes.truncate(size(len));
        write(&mut host, at, &bytes)?;
        Ok(OK)
    })?;
    linker.func_wrap(WASI, "environ_sizes_get", |mut host: Host<'_>, count: i32, bytes: i32| -> Outcome {
        write_number(&mut host, count, 0)?;
        write_number(&mut host, bytes, 0)?;
        Ok(OK)
    })?;
    linker.func_wrap(WASI, "environ_get", |_: Host<'_>, _: i32, _: i32| -> Outcome { Ok(OK) })?;
    linker.func_wrap(WASI, "args_sizes_get", |mut host: Host<'_>, count: i32, bytes: i32| -> Outcome {
        write_number(&mut host, count, 0)?;
        write_number(&mut host, bytes, 0)?;
        Ok(OK)
    })?;
    linker.func_wrap(WASI, "args_get", |_: Host<'_>, _: i32, _: i32| -> Outcome { Ok(OK) })?;
    linker.func_wrap(
        WASI,
        "clock_time_get",
        |mut host: Host<'_>, _id: i32, _precision: i64, at: i32| -> Outcome {
            write(&mut host, at, &nanoseconds().to_le_bytes())?;
            Ok(OK)
        },
    )?;
    linker.func_wrap(WASI, "proc_exit", |_: Host<'_>, code: i32| -> Result<(), Error> {
        Err(trap(format!("proc_exit({code})")))
    })?;
    Ok(())
}
