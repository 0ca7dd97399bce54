// Paints a mask over a picture. value: the mask as a PNG, white where the edit may act; picture: what is below.
const canvas = element.querySelector("canvas"), pen = canvas.getContext("2d");
const mask = document.createElement("canvas"), ink = mask.getContext("2d", { willReadFrequently: true });
const size = element.querySelector("input");
const below = new Image();
let past = [], adds = true, last = null, own = "";

function draw() {
  const tint = document.createElement("canvas");
  [tint.width, tint.height] = [canvas.width, canvas.height];
  const t = tint.getContext("2d");
  const seen = ink.getImageData(0, 0, mask.width, mask.height);
  for (let k = 0; k < seen.data.length; k += 4) {
    seen.data[k + 3] = seen.data[k] * 0.55;
    [seen.data[k], seen.data[k + 1], seen.data[k + 2]] = [255, 122, 0];
  }
  t.putImageData(seen, 0, 0);
  pen.drawImage(below, 0, 0, canvas.width, canvas.height);
  pen.drawImage(tint, 0, 0);
}
function blank() { ink.fillStyle = "black"; ink.fillRect(0, 0, mask.width, mask.height); }
function load(url, image) {
  return new Promise(done => { image.onload = image.onerror = done; url ? image.src = url : done(); });
}
async function show() {
  if (!props.picture || props.value === own && own) return;
  await load(props.picture, below);
  [canvas.width, canvas.height] = [mask.width, mask.height] = [below.naturalWidth, below.naturalHeight];
  const given = new Image();
  blank();
  await load(props.value, given);
  if (props.value) ink.drawImage(given, 0, 0, mask.width, mask.height);
  past = [];
  draw();
}
function keep() { own = props.value = mask.toDataURL(); trigger("input"); }
function at(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
}
function stroke(from, to) {
  ink.strokeStyle = adds ? "white" : "black";
  ink.lineWidth = size.value / 100 * canvas.width;
  ink.lineCap = "round";
  ink.beginPath(); ink.moveTo(...from); ink.lineTo(...to); ink.stroke();
  draw();
}
function remember() { past.push(ink.getImageData(0, 0, mask.width, mask.height)); past = past.slice(-30); }
canvas.addEventListener("pointerdown", event => {
  canvas.setPointerCapture(event.pointerId);
  remember(); last = at(event); stroke(last, last);
});
canvas.addEventListener("pointermove", event => { if (last) { const to = at(event); stroke(last, to); last = to; } });
canvas.addEventListener("pointerup", () => { if (last) { last = null; keep(); } });
canvas.addEventListener("pointercancel", () => { last = null; });
element.addEventListener("click", event => {
  const does = event.target.dataset?.does;
  if (does === "add" || does === "take") {
    adds = does === "add";
    element.querySelectorAll("[aria-pressed]").forEach(b => b.setAttribute("aria-pressed", b.dataset.does === does));
  }
  if (does === "undo" && past.length) { ink.putImageData(past.pop(), 0, 0); draw(); keep(); }
  if (does === "clear" || does === "all") {
    remember(); blank();
    if (does === "all") { ink.fillStyle = "white"; ink.fillRect(0, 0, mask.width, mask.height); }
    draw(); keep();
  }
});
watch(["picture", "value"], show);
show();
