//! A server whose tools end when the test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use odin::runner::{Progress, RmcpRunner};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};
use tokio::sync::Semaphore;

#[derive(Clone)]
pub struct Server {
    go: Arc<Semaphore>,
    runs: Arc<AtomicUsize>,
    stopped: Arc<AtomicUsize>,
}

impl Default for Server {
    fn default() -> Self {
        Self { go: Arc::new(Semaphore::new(0)), runs: Arc::default(), stopped: Arc::default() }
    }
}

#[derive(serde::Deserialize, rmcp::schemars::JsonSchema)]
struct Text {
    text: String,
}

/// Counts a run that is dropped before its end.
struct Run(Arc<AtomicUsize>, bool);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.fetch_add(usize::from(!self.1), Ordering::SeqCst);
    }
}

impl Server {
    pub fn runner(&self) -> RmcpRunner<Self> {
        RmcpRunner::new(Arc::new(self.clone()))
    }

    /// Lets so many runs end.
    pub fn finish(&self, runs: usize) {
        self.go.add_permits(runs);
    }

    /// How many runs were started.
    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// How many were stopped before their end.
    pub fn stopped(&self) -> usize {
        self.stopped.load(Ordering::SeqCst)
    }

    async fn run(&self, text: String) -> String {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let mut run = Run(self.stopped.clone(), false);
        self.go.acquire().await.unwrap().forget();
        run.1 = true;
        format!("worked {text}")
    }
}

#[tool_router]
impl Server {
    #[tool(description = "Says it again.")]
    fn echo(&self, Parameters(Text { text }): Parameters<Text>) -> String {
        format!("echo {text}")
    }

    #[tool(description = "Reports, then works.")]
    async fn work(&self, Parameters(Text { text }): Parameters<Text>, progress: Progress) -> String {
        progress.report(1, 2).await.unwrap();
        self.run(text).await
    }

    #[tool(description = "Works, and may run again.", annotations(read_only_hint = true))]
    async fn look(&self, Parameters(Text { text }): Parameters<Text>) -> String {
        self.run(text).await
    }

    #[tool(description = "Works and says nothing meanwhile.")]
    async fn hush(&self, Parameters(Text { text }): Parameters<Text>) -> String {
        self.run(text).await
    }
}

#[tool_handler]
impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}
