//! One worker process: modules, instances, contexts.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use wasmi::{Engine, Instance, Linker, Module, Store};

use super::imports;
use super::shared::SharedData;
use super::state::{Callout, CalloutReply, HttpContext, LocalReply, Phase, Poison, RequestState, State};
use crate::log::{Log, Severity};

/// Why a worker has no filters.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A module is none: Kong does not start.
    #[error("{0}: not a WebAssembly module: {1}")]
    Broken(String, String),
    /// Anything else: Kong serves without filters.
    #[error("failed loading filters: {0}")]
    Other(String),
}

/// What Kong calls without looking whether it is there.
const EXPORTS: [&str; 15] = [
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_tick",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_response_body",
    "proxy_on_response_trailers",
    "proxy_on_http_call_response",
    "proxy_on_done",
    "proxy_on_log",
    "proxy_on_delete",
    "memory",
];

/// A filter chain: modules with their configurations.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Name of the module and its configuration.
    pub filters: Vec<(String, Vec<u8>)>,
}

/// What a filter wants after it was called.
#[derive(Debug)]
pub enum Step {
    /// On to the next filter, or to the upstream.
    Continue,
    /// This answer.
    Reply(LocalReply),
    /// It waits for the answers to these, and for those that were made before.
    Pause(Vec<Callout>),
}

struct Live {
    store: Store<State>,
    instance: Instance,
    /// By configuration, so that chains share a root context as they share the instance.
    roots: HashMap<Vec<u8>, u32>,
    /// Counts the instances of the module: a request of an older one is lost.
    generation: u64,
}

/// A request under way in a filter.
#[derive(Clone, Debug)]
pub struct Ticket {
    module: String,
    context: u32,
    generation: u64,
}

/// One worker. It does one thing at a time, as nginx does.
pub struct Worker {
    engine: Engine,
    modules: BTreeMap<String, Module>,
    configurations: BTreeMap<String, Vec<Vec<u8>>>,
    live: BTreeMap<String, Live>,
    shared: Arc<Mutex<SharedData>>,
    poison: Poison,
    log: Log,
    next_context: u32,
    generation: u64,
}

impl Worker {
    /// Compiles all modules, and configures those of the chains.
    ///
    /// # Errors
    /// [`LoadError`] when one module is broken, imports what Kong does not have, has no ABI or not all of its
    /// functions, refuses its configuration, or traps.
    pub fn new(
        modules: &BTreeMap<String, Vec<u8>>,
        chains: &[Chain],
        shared: Arc<Mutex<SharedData>>,
        poison: Poison,
        log: Log,
    ) -> Result<Self, LoadError> {
        let engine = Engine::default();
        let mut configurations: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (module, configuration) in chains.iter().flat_map(|c| &c.filters) {
            let known = configurations.entry(module.clone()).or_default();
            if !known.contains(configuration) {
                known.push(configuration.clone());
            }
        }
        let mut compiled = BTreeMap::new();
        for (name, bytes) in modules {
            let broken = |why: String| LoadError::Broken(name.clone(), why);
            // Tests write some as text.
            if ![&b"\0asm"[..], b"(module"].iter().any(|start| bytes.starts_with(start)) {
                return Err(broken("unexpected header".into()));
            }
            let module = Module::new(&engine, bytes).map_err(|e| broken(e.to_string()))?;
            compiled.insert(name.clone(), module);
        }
        let mut worker = Self {
            engine,
            modules: compiled,
            configurations,
            live: BTreeMap::new(),
            shared,
            poison,
            log,
            next_context: 1,
            generation: 0,
        };
        for name in worker.configurations.keys().cloned().collect::<Vec<_>>() {
            worker.start(&name)?;
        }
        Ok(worker)
    }

    fn context(&mut self) -> u32 {
        let context = self.next_context;
        self.next_context += 1;
        context
    }

    /// Makes an instance of a module, with its root contexts.
    fn start(&mut self, name: &str) -> Result<(), LoadError> {
        let fail = |e: wasmi::Error| LoadError::Other(format!("{name}: {e}"));
        let module =
            self.modules.get(name).ok_or_else(|| LoadError::Other(format!("no \"{name}\" module")))?;
        let exports: Vec<&str> = module.exports().map(|e| e.name()).collect();
        if !exports.iter().any(|e| e.starts_with("proxy_abi_version_")) {
            return Err(LoadError::Other(format!("{name}: unknown ABI version")));
        }
        if let Some(missing) = EXPORTS.iter().find(|e| !exports.contains(e)) {
            return Err(LoadError::Other(format!("{name}: no {missing}")));
        }
        let state = State {
            log: self.log.clone(),
            shared: self.shared.clone(),
            poison: self.poison.clone(),
            phase: Phase::Start,
            context: 0,
            configurations: HashMap::new(),
            requests: HashMap::new(),
            callout_reply: CalloutReply::default(),
            next_token: 1,
            ticks: HashMap::new(),
            metrics: Vec::new(),
        };
        let mut store = Store::new(&self.engine, state);
        let mut linker = Linker::new(&self.engine);
        imports::define(&mut linker).map_err(fail)?;
        let instance = linker.instantiate_and_start(&mut store, module).map_err(fail)?;
        self.generation += 1;
        let mut live = Live { store, instance, roots: HashMap::new(), generation: self.generation };
        for init in ["_initialize", "_start"] {
            if instance.get_func(&live.store, init).is_some() {
                live.call(init, ()).map_err(fail)?;
                break;
            }
        }
        for configuration in self.configurations.get(name).cloned().unwrap_or_default() {
            let root = self.context();
            let size = i32::try_from(configuration.len()).unwrap_or(i32::MAX);
            live.store.data_mut().configurations.insert(root, configuration.clone());
            live.enter(root, Phase::Start);
            let id = root.cast_signed();
            live.call("proxy_on_context_create", (id, 0)).map_err(fail)?;
            if live.ask("proxy_on_vm_start", (id, 0)).map_err(fail)? == 0
                || live.ask("proxy_on_configure", (id, size)).map_err(fail)? == 0
            {
                return Err(LoadError::Other(format!("{name}: on_configure failed")));
            }
            live.roots.insert(configuration, root);
        }
        self.live.insert(name.to_owned(), live);
        Ok(())
    }

    /// Begins a request in a filter. The request's state comes back with [`Worker::finish`].
    ///
    /// # Errors
    /// A trap: the request ends with 500, and the instance with all that it knew is gone.
    pub fn request(
        &mut self,
        filter: &(String, Vec<u8>),
        request: RequestState,
    ) -> Result<(Ticket, Step), String> {
        let (name, configuration) = filter;
        self.sound()?;
        if !self.live.contains_key(name) {
            self.start(name).map_err(|e| e.to_string())?;
        }
        let context = self.context();
        let headers = i32::try_from(request.headers.pairs().count() + 4).unwrap_or(i32::MAX);
        let body = i32::try_from(request.body.len()).unwrap_or(i32::MAX);
        let live = self.live.get_mut(name).ok_or("no instance")?;
        let root = *live.roots.get(configuration).ok_or("no root context")?;
        let ticket = Ticket { module: name.clone(), context, generation: live.generation };
        live.store.data_mut().requests.insert(context, HttpContext { request, ..HttpContext::default() });
        live.enter(context, Phase::RequestHeaders);
        let id = context.cast_signed();
        let run = |live: &mut Live| -> Result<Step, wasmi::Error> {
            live.call("proxy_on_context_create", (id, root.cast_signed()))?;
            let action = live.ask("proxy_on_request_headers", (id, headers, i32::from(body == 0)))?;
            let step = live.step(action);
            if body > 0 && matches!(step, Step::Continue) {
                live.enter(context, Phase::RequestBody);
                let action = live.ask("proxy_on_request_body", (id, body, 1))?;
                return Ok(live.step(action));
            }
            Ok(step)
        };
        let step = run(live);
        self.after(&ticket, step)
    }

    /// Gives a filter the answer to one of its requests.
    ///
    /// # Errors
    /// As [`Worker::request`]; also when the instance was lost in between.
    pub fn answered(
        &mut self,
        ticket: &Ticket,
        token: u32,
        reply: CalloutReply,
    ) -> Result<(Ticket, Step), String> {
        self.sound()?;
        let live = self.live.get_mut(&ticket.module).filter(|l| l.generation == ticket.generation);
        let live = live.ok_or("the instance was lost while the request waited")?;
        // A failure comes with no headers: its pseudo-header is not counted.
        let headers = reply.headers.iter().filter(|(n, _)| n != ":dispatch_status").count();
        let headers = i32::try_from(headers).unwrap_or(i32::MAX);
        let body = i32::try_from(reply.body.len()).unwrap_or(i32::MAX);
        live.enter(ticket.context, Phase::CalloutReply);
        live.store.data_mut().callout_reply = reply;
        if let Some(context) = live.store.data_mut().request_mut() {
            context.waiting = context.waiting.saturating_sub(1);
        }
        let id = ticket.context.cast_signed();
        let called = live.call("proxy_on_http_call_response", (id, token.cast_signed(), headers, body, 0));
        live.store.data_mut().callout_reply = CalloutReply::default();
        let step = called.map(|()| live.step(1));
        self.after(ticket, step)
    }

    /// Ends a request and gives back what the filter has made of it.
    pub fn finish(&mut self, ticket: &Ticket) -> Option<RequestState> {
        let live = self.live.get_mut(&ticket.module).filter(|l| l.generation == ticket.generation)?;
        let context = ticket.context.cast_signed();
        live.enter(ticket.context, Phase::Done);
        let last = ["proxy_on_log", "proxy_on_delete"];
        let mut ended = live.ask("proxy_on_done", context).map(|_| ());
        for name in last {
            ended = ended.and_then(|()| live.call(name, context));
        }
        let request = live.store.data_mut().requests.remove(&ticket.context).map(|c| c.request);
        if let Err(error) = ended {
            self.lose(&ticket.module, &error.to_string());
        }
        request
    }

    /// Lets every root context tick that has asked for it.
    pub fn tick(&mut self) {
        for name in self.live.keys().cloned().collect::<Vec<_>>() {
            let Some(live) = self.live.get_mut(&name) else { continue };
            let roots: Vec<u32> =
                live.store.data().ticks.iter().filter(|(_, p)| **p > 0).map(|(r, _)| *r).collect();
            for root in roots {
                live.enter(root, Phase::Tick);
                if let Err(error) = live.call("proxy_on_tick", root.cast_signed()) {
                    self.lose(&name, &error.to_string());
                    break;
                }
            }
        }
    }

    /// Whether the memory is still what it was.
    fn sound(&self) -> Result<(), String> {
        self.poison.get().map_or(Ok(()), |why| Err(format!("the worker process crashed: {why}")))
    }

    fn after(&mut self, ticket: &Ticket, step: Result<Step, wasmi::Error>) -> Result<(Ticket, Step), String> {
        match step {
            Ok(step) => Ok((ticket.clone(), step)),
            Err(error) => {
                self.lose(&ticket.module, &error.to_string());
                Err(error.to_string())
            }
        }
    }

    fn lose(&mut self, module: &str, why: &str) {
        self.log.write(Severity::Error, format!("[wasm] {module}: {why}"));
        self.live.remove(module);
    }
}

impl Live {
    fn enter(&mut self, context: u32, phase: Phase) {
        let state = self.store.data_mut();
        state.context = context;
        state.phase = phase;
    }

    /// Calls an export without a result.
    fn call<P: wasmi::WasmParams>(&mut self, name: &str, params: P) -> Result<(), wasmi::Error> {
        self.function(name)?.typed::<P, ()>(&self.store)?.call(&mut self.store, params)
    }

    /// Calls an export with a result.
    fn ask<P: wasmi::WasmParams>(&mut self, name: &str, params: P) -> Result<i32, wasmi::Error> {
        self.function(name)?.typed::<P, i32>(&self.store)?.call(&mut self.store, params)
    }

    fn function(&self, name: &str) -> Result<wasmi::Func, wasmi::Error> {
        let function = self.instance.get_func(&self.store, name);
        function.ok_or_else(|| wasmi::Error::new(format!("no function {name}")))
    }

    /// What the filter wants, by its action and its calls.
    fn step(&mut self, action: i32) -> Step {
        let Some(context) = self.store.data_mut().request_mut() else { return Step::Continue };
        if let Some(reply) = context.reply.take() {
            return Step::Reply(reply);
        }
        if action == 0 || std::mem::take(&mut context.resumed) {
            return Step::Continue;
        }
        Step::Pause(std::mem::take(&mut context.callouts))
    }
}
