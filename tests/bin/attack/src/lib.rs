//! Raw system calls, as code of an attacker makes them. For tests only: the one place of this
//! repository, besides `vendor/`, that has `unsafe`.

pub use libc;

/// Makes a system call; an error is its number.
pub fn call(number: libc::c_long, arguments: [usize; 6]) -> Result<i64, i32> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: none in general. The callers pass null pointers, or pointers to data that lives for
    // the rest of the process, and expect the kernel to refuse the call.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result >= 0 {
        return Ok(result);
    }
    Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}
