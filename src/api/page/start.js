// Puts the page together and listens to it. Last, as it uses all that stands above.

headings($("workers"), WORKER_COLUMNS);
headings($("masters"), MASTER_COLUMNS);
headings($("busiest"), BUSIEST_COLUMNS);
headings($("errors"), ERROR_COLUMNS);
headings($("quarantine"), QUARANTINE_COLUMNS);
$("charts").append(...CHARTS.map(makeChart));

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn();
});
$("sign-out").addEventListener("click", () => signOut());
$("roll").addEventListener("click", confirmRoll);
$("ask-cancel").addEventListener("click", () => $("ask").close());
// The second click of a double click that opened the dialog is not an answer to it.
$("ask-go").addEventListener("click", (event) => { if (event.detail < 2) go(); });
// The event comes a moment after the dialog has closed; by then the next question may stand there.
$("ask").addEventListener("close", () => { if (!$("ask").open) asked = null; });

document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
// A page that comes back from the browser's cache of pages starts anew: its token is not to outlive its tab's visit.
window.addEventListener("pageshow", (event) => { if (event.persisted) signOut(); });
setInterval(tick, 1_000);
signOut();
