//! What a function of a Sandbar application is linked with.
//!
//! ```no_run
//! use sandbar_function::Context;
//!
//! fn greet(event: &[u8], context: &Context<'_>) -> Result<String, std::str::Utf8Error> {
//!     let name = std::str::from_utf8(event)?;
//!     context.log(format_args!("greeting {name}"));
//!     Ok(format!("hello, {name}"))
//! }
//!
//! fn main() {
//!     sandbar_function::serve(greet)
//! }
//! ```
//!
//! The program is its own *worker*: started once in the sandbox, it runs what stands before `serve` (load models, open
//! files), then forks an *instance* for every call. An instance is a process that serves one call and is gone, so that no
//! call finds what another left.
//!
//! The modules below the surface are what other runtimes are built from: the C interface (`include/sandbar.h`), the
//! Python worker on top of it, and the runtime for plain executables.

pub mod abi;
mod callee;
mod context;
pub mod heap;
pub mod instance;
mod linger;
mod output;
mod pool;
pub mod process;
pub mod template;
pub mod worker;

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use callee::CallError;
pub use context::Context;
pub use output::{AsOutput, Output, Reply};
pub use sandbar_bus::{Code, Method};

use crate::instance::Instance;
use crate::worker::{FUNCTION_VARIABLE, Worker, WorkerError, give_up};

/// Serves one function. The process is the worker of whatever function the manifest gives it to. Never returns.
pub fn serve<H, O, E>(handle: H) -> !
where
    H: Fn(&[u8], &Context<'_>) -> Result<O, E>,
    O: AsOutput,
    E: Display,
{
    serve_with(&move |instance: &Instance| serve_call(instance, &handle))
}

type ServeCall = Box<dyn Fn(&Instance)>;

/// Several functions in one executable; the manifest says of which one a process is the worker.
#[derive(Default)]
pub struct Functions {
    functions: Vec<(String, ServeCall)>,
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.functions.iter().map(|(name, _)| name)).finish()
    }
}

impl Functions {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function under the name it has in the manifest.
    #[must_use]
    pub fn add<H, O, E>(mut self, name: &str, handle: H) -> Self
    where
        H: Fn(&[u8], &Context<'_>) -> Result<O, E> + 'static,
        O: AsOutput,
        E: Display,
    {
        self.functions.push((name.to_owned(), Box::new(move |instance: &Instance| serve_call(instance, &handle))));
        self
    }

    /// Serves the function that this process was started for. Never returns.
    pub fn serve(self) -> ! {
        let name = std::env::var(FUNCTION_VARIABLE).unwrap_or_default();
        match self.functions.iter().find(|(known, _)| *known == name) {
            Some((_, serve_call)) => serve_with(serve_call),
            None if name.is_empty() => give_up(&WorkerError::NotInASandbox("SANDBAR_FUNCTION is not set")),
            None => give_up(&WorkerError::NoSuchFunction(name)),
        }
    }
}

fn serve_with(serve_call: &dyn Fn(&Instance)) -> ! {
    let worker = Worker::join().unwrap_or_else(|error| give_up(&error));
    // What the worker itself has printed would otherwise be printed by each instance again.
    flush_stdout();
    if let Err(error) = worker.ready() {
        give_up(&error);
    }
    let instance = worker.next_instance();
    serve_call(&instance);
    flush_stdout();
    instance.exit()
}

/// What a panic said, if it said it in words.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

/// Writes out what is held back for want of a line end.
fn flush_stdout() {
    // Whoever closed standard output does not want it.
    let _closed = std::io::Write::flush(&mut std::io::stdout());
}

fn serve_call<H, O, E>(instance: &Instance, handle: &H)
where
    H: Fn(&[u8], &Context<'_>) -> Result<O, E>,
    O: AsOutput,
    E: Display,
{
    let Some(served) = instance.take() else { return };
    let context = Context::new(instance, &served);
    // Whatever the panic left broken goes with the process.
    let result = catch_unwind(AssertUnwindSafe(|| handle(served.event(), &context)));
    let (content_format, properties) = (context.answer_format.get(), context.answer.take());
    match result {
        Ok(Ok(output)) => instance.answer(served, &output.as_output(), content_format, &properties),
        Ok(Err(error)) => instance.fail(served, &error.to_string()),
        Err(panic) => instance.fail(served, &format!("the function panicked: {}", panic_text(&*panic))),
    }
}
