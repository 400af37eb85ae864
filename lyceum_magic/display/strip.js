// Draws the strip of one run. Everything shown comes from `facts`; only the time, and what it costs,
// is counted here, so that a quiet run costs no more than a beat a second.

const TICK_MS = 1000;
const BEAT_LIMIT_MS = 5000;
const END_LIMIT_MS = 10000;

function element(tag, className, parent) {
  const node = document.createElement(tag);
  node.className = className;
  parent.append(node);
  return node;
}

// As summary.py words it, without tenths: they would only flicker.
function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / 60);
  const two = (number) => String(number).padStart(2, "0");
  if (minutes === 0) return `${whole} s`;
  if (minutes < 60) return `${minutes} min ${two(whole % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

// As money.py words it: cents, and below them one digit.
function dollars(amount) {
  if (amount > 0 && amount < 0.0001) return "under $0.0001";
  if (amount > 0 && amount < 0.0095) return `$${Number(amount.toPrecision(1))}`;
  return `$${amount.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
}

// What Jupyter's own stop square does. It reaches a kernel whose cell blocks, where a comm message
// would wait until the cell has ended. Resolves to false where the page is no Jupyter Server's
// (VS Code, Colab), or where the server refuses.
async function interruptKernel(kernelId) {
  const config = pageConfig();
  const baseUrl = config.baseUrl ?? document.body.dataset.baseUrl;
  if (!kernelId || !baseUrl) return false;
  const headers = {};
  const xsrf = document.cookie.match(/(?:^|;\s*)_xsrf=([^;]*)/)?.[1];
  if (xsrf) headers["X-XSRFToken"] = decodeURIComponent(xsrf);
  if (config.token) headers.Authorization = `token ${config.token}`;
  const root = new URL(baseUrl.replace(/\/?$/, "/"), location.href);
  try {
    const response = await fetch(new URL(`api/kernels/${kernelId}/interrupt`, root), {
      method: "POST",
      headers,
      credentials: "same-origin",
    });
    return response.ok;
  } catch {
    return false;
  }
}

// Whether the cell of the run still blocks its kernel. It beats once a second; only a beat that comes
// after the click proves it, for the kernel may have been restarted and be busy with something else.
function isCellRunning(model) {
  return new Promise((resolve) => {
    const onBeat = () => finish(true);
    const timer = setTimeout(() => finish(false), BEAT_LIMIT_MS);
    function finish(answer) {
      clearTimeout(timer);
      model.off("change:beats", onBeat);
      resolve(answer && !model.get("facts").is_final);
    }
    model.on("change:beats", onBeat);
  });
}

function pageConfig() {
  try {
    return JSON.parse(document.getElementById("jupyter-config-data")?.textContent ?? "{}");
  } catch {
    return {};
  }
}

// The moment the run started, by this browser's clock: the kernel's may differ, so the kernel says
// only how much time has passed. A page that is loaded again gets old facts, hence the memory.
function startOf(facts, { isFresh }) {
  const key = `lyceum-magic:started:${facts.run_id}`;
  let startedAt = Date.now() - facts.elapsed_s * 1000;
  try {
    if (!isFresh) startedAt = Math.min(startedAt, Number(sessionStorage.getItem(key) ?? startedAt));
    if (facts.is_final) sessionStorage.removeItem(key);
    else if (facts.run_id) sessionStorage.setItem(key, String(startedAt));
  } catch {
    // A page without storage only loses the time before its own reload.
  }
  return startedAt;
}

function render({ model, el }) {
  el.classList.add("lyceum-strip");
  const status = element("div", "lyceum-status", el);
  status.setAttribute("role", "status");
  status.setAttribute("aria-live", "polite");
  const badge = element("span", "lyceum-badge", status);
  const local = element("span", "lyceum-badge lyceum-local", status);
  local.textContent = "LOCAL";
  local.title = "Runs on the server that comes with lyceum-magic, on this machine";
  const machine = element("span", "lyceum-machine", status);
  const name = element("span", "lyceum-name", status);
  const note = element("span", "lyceum-note", status);
  // Words that run from right to left keep to their own place.
  for (const node of [machine, name, note]) node.dir = "auto";
  // Outside the live region: a screen reader must not read out every second.
  const time = element("span", "lyceum-time", el);
  const cost = element("span", "lyceum-time", el);
  const stop = element("button", "lyceum-stop", el);
  stop.type = "button";

  let startedAt = startOf(model.get("facts"), { isFresh: false });
  let isStopping = false;
  let trouble = "";

  function tick() {
    const facts = model.get("facts");
    const elapsed = facts.is_final ? facts.elapsed_s : (Date.now() - startedAt) / 1000;
    time.textContent = duration(elapsed);
    const isCounting = facts.price_per_hour && facts.waited_s !== null && !facts.is_final;
    cost.textContent = isCounting
      ? dollars((facts.price_per_hour * Math.max(0, elapsed - facts.waited_s)) / 3600)
      : facts.cost || (facts.is_final ? "" : facts.ceiling);
    cost.title = facts.ceiling;
    cost.hidden = !cost.textContent;
  }

  function draw() {
    const facts = model.get("facts");
    badge.textContent = `${facts.symbol} ${facts.label}`;
    badge.style.backgroundColor = facts.colour;
    local.hidden = !facts.is_local;
    machine.textContent = facts.machine;
    name.textContent = facts.name || facts.short_id;
    name.title = facts.run_id ? `run ${facts.run_id}` : "";
    name.hidden = !name.textContent;
    const remarks = [facts.is_detached && "detached", trouble, facts.detail, facts.note];
    note.textContent = remarks.filter(Boolean).join(" · ");
    note.title = note.textContent;
    stop.hidden = facts.is_final;
    stop.disabled = isStopping;
    stop.textContent = isStopping ? "Stopping…" : "Stop";
    stop.setAttribute("aria-label", `Stop run ${facts.name || facts.short_id}`);
    tick();
  }

  async function onStop() {
    const { is_final: isFinal, is_detached: isDetached } = model.get("facts");
    // The kernel would interrupt whatever cell runs by then.
    if (isFinal || isStopping) return;
    isStopping = true;
    trouble = "";
    draw();
    const kernelId = model.get("kernel_id");
    // The cell of a detached run is over; an interrupt would hit another one.
    if (!isDetached && kernelId && (await isCellRunning(model)) && (await interruptKernel(kernelId))) {
      return;
    }
    try {
      model.send({ type: "stop" });
    } catch {
      return onNoAnswer(); // the page knows that the kernel was restarted
    }
    setTimeout(onNoAnswer, END_LIMIT_MS);
  }

  function onNoAnswer() {
    const facts = model.get("facts");
    if (facts.is_final) return;
    isStopping = false;
    trouble = `no answer from its kernel; %lyceum abort ${facts.short_id} ends the run`;
    draw();
  }

  function onFacts() {
    startedAt = startOf(model.get("facts"), { isFresh: true });
    draw();
  }

  stop.addEventListener("click", onStop);
  model.on("change:facts", onFacts);
  const timer = setInterval(tick, TICK_MS);
  draw();
  return () => {
    clearInterval(timer);
    model.off("change:facts", onFacts);
  };
}

export default { render };
