/** Draws a text file as a terminal picture: `node docs/picture.mjs IN.txt OUT.svg`. Used for the README. */
import { readFileSync, writeFileSync } from 'node:fs';

const [, , from, to] = process.argv;
const lines = readFileSync(from, 'utf8').replace(/\n+$/, '').split('\n');
const [size, step, pad] = [13, 18, 16];
const width = Math.round(Math.max(...lines.map((line) => line.length)) * size * 0.602) + 2 * pad;
const height = lines.length * step + 2 * pad;
const xml = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
const color = (line) =>
  /^[A-Z]\. |^\$ /.test(line)
    ? '#ffffff'
    : /F_[A-Z]+|refused|old page/.test(line)
      ? '#f0a46c'
      : /NESTED|VMID \d/.test(line)
        ? '#8fd19e'
        : '#c9d1d9';
const rows = lines.map(
  (line, i) => `<text x="${pad}" y="${pad + (i + 0.75) * step}" fill="${color(line)}">${xml(line)}</text>`,
);
writeFileSync(
  to,
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="Output of smmulab demo">
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="${size}" xml:space="preserve">
${rows.join('\n')}
</g>
</svg>
`,
);
