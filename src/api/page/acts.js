// What the buttons do, once the dialog has said what will happen and somebody has agreed.

let asked = null;

function confirm(question) {
  if ($("ask").open) return;
  asked = { ...question, isUnderWay: false };
  setText($("ask-title"), question.title);
  setText($("ask-text"), question.text);
  setText($("ask-reason"), "");
  setText($("ask-go"), question.verb);
  setText($("ask-cancel"), "Cancel");
  $("ask-go").className = question.isHarmless ? "primary" : "danger";
  $("ask-go").disabled = false;
  $("ask").showModal();
  $("ask-cancel").focus();
}

async function go() {
  if (asked === null || asked.isUnderWay) return;
  const [mine, mySession] = [asked, session];
  mine.isUnderWay = true;
  $("ask-cancel").focus();
  $("ask-go").disabled = true;
  setText($("ask-go"), "Under way…");
  setText($("ask-cancel"), "Close");
  setText($("ask-reason"), "");
  try {
    await ask("POST", mine.path, ACTION_MS);
    if (mySession !== session) return;
    setText($("notice"), mine.done);
    if (asked === mine) $("ask").close();
  } catch (error) {
    if (mySession !== session) return;
    if (error instanceof Refused && error.status === 401) return signOut(error.message);
    const why = error instanceof Refused ? error.message : "there was no answer, so it may have been done or not";
    setText($("notice"), sentence(`${mine.title.replace(/\?$/, "")}: this did not work, as ${why}`));
    if (asked === mine) {
      mine.isUnderWay = false;
      setText($("ask-reason"), sentence(why));
      setText($("ask-go"), mine.verb);
      $("ask-go").disabled = false;
    }
  }
  poll();
}

function confirmRestart(id) {
  confirm({
    title: `Restart worker ${id}?`,
    text: "It gets no new events and has a few seconds for those it has (--drain-timeout); what runs for longer ends with an " +
      "unknown outcome. Then a new one starts in its place. New events for its tenants wait meanwhile.",
    verb: `Restart worker ${id}`,
    path: `i/restart-worker/${id}`,
    done: `Worker ${id} is being restarted.`,
    isHarmless: true,
  });
}

function confirmStart(id) {
  confirm({
    title: `Start worker ${id}?`,
    text: "It runs again, and its tenants’ events reach it again.",
    verb: `Start worker ${id}`,
    path: `i/restart-worker/${id}`,
    done: `Worker ${id} is being started.`,
    isHarmless: true,
  });
}

function confirmKill(id) {
  confirm({
    title: `Kill worker ${id}?`,
    text: "It ends at once. The events it has in flight fail, and nobody knows how far they came. It stays stopped until " +
      "somebody starts it; until then events for its tenants fail at once, with NoWorker.",
    verb: `Kill worker ${id}`,
    path: `i/kill-worker/${id}`,
    done: `Worker ${id} was killed and stays stopped until it is started.`,
  });
}

function confirmRoll() {
  const count = shown.status.workers.length;
  confirm({
    title: `Restart all ${count} workers, one by one?`,
    text: "Each has a few seconds for what it has (--drain-timeout), ends and starts anew before the next one does; what runs " +
      "for longer ends with an unknown outcome. Stopped workers are left alone. It may take a while.",
    verb: "Restart all",
    path: "i/rolling-restart",
    done: "A rolling restart has begun.",
    isHarmless: true,
  });
}

function confirmDrop(tenant) {
  confirm({
    title: `Drop ${tenant}?`,
    text: "What it has running is ended, with an error for whoever waits, and its VM is closed. Its data stays, and its next event " +
      "makes a new VM.",
    verb: `Drop ${tenant}`,
    path: `i/drop-tenant/${tenant.split(":").map(encodeURIComponent).join("/")}`,
    done: `${tenant} was dropped.`,
  });
}

function confirmLift(tenant) {
  confirm({
    title: `Lift the quarantine of ${tenant}?`,
    text: "Its events run again. If it was what brought its worker down, it may do so again.",
    verb: "Lift the quarantine",
    path: `i/quarantine/lift/${tenant.split(":").map(encodeURIComponent).join("/")}`,
    done: `${tenant} is no longer quarantined.`,
  });
}
