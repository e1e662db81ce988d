//! A proxy whose connections can be made to stand still, as a cable that is pulled: nothing passes,
//! and neither side is told. Where it leads can change, as an address that moves to another server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

pub(crate) struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    target: SocketAddr,
    is_cut: bool,
    /// Connections are refused, as where nothing listens.
    is_closed: bool,
    open: Vec<TcpStream>,
}

impl Wire {
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Mutex::new(State { target, is_cut: false, is_closed: false, open: Vec::new() });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let wire = Self { address, shared };
        wire.accept(listener);
        wire
    }

    fn accept(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        // Ends with the process, if not before, as everything that it serves does.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if shared.state.lock().expect("no panic").is_closed {
                    break;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.carry(near));
            }
            drop(listener);
            shared.changed.notify_all();
        });
    }

    /// What it leads to is gone: so is the wire.
    pub(crate) fn close(&self) {
        self.shared.state.lock().expect("no panic").is_closed = true;
        // Wakes the thread that accepts; then nothing listens.
        while TcpStream::connect(self.address).is_ok() {}
    }

    /// What it leads to is there again.
    pub(crate) fn open(&self) {
        let mut state = self.shared.state.lock().expect("no panic");
        if std::mem::take(&mut state.is_closed) {
            drop(state);
            self.accept(TcpListener::bind(self.address).expect("the same port"));
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing passes from now on.
    pub(crate) fn cut(&self) {
        self.shared.state.lock().expect("no panic").is_cut = true;
    }

    /// What stood still goes on.
    pub(crate) fn mend(&self) {
        self.shared.state.lock().expect("no panic").is_cut = false;
        self.shared.changed.notify_all();
    }

    /// New connections lead there; those that are open end.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        let mut state = self.shared.state.lock().expect("no panic");
        state.target = target;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    /// Waits while nothing may pass; then where to.
    fn pass(&self) -> SocketAddr {
        let state = self.state.lock().expect("no panic");
        self.changed.wait_while(state, |state| state.is_cut).expect("no panic").target
    }

    fn carry(self: Arc<Self>, near: TcpStream) {
        let Ok(far) = TcpStream::connect(self.pass()) else { return };
        let (Ok(near2), Ok(far2)) = (near.try_clone(), far.try_clone()) else { return };
        {
            let mut state = self.state.lock().expect("no panic");
            state.open.extend([near.try_clone(), far.try_clone()].into_iter().flatten());
            // Those that have ended are of no use any more.
            state.open.retain(|stream| stream.peer_addr().is_ok());
        }
        let back = Arc::clone(&self);
        std::thread::spawn(move || back.copy(far2, near2));
        self.copy(near, far);
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut bytes).unwrap_or(0);
            self.pass();
            if read == 0 || to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
