import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MAX_LINE, QtestSession } from '../../src/lab/qtest/protocol.ts';
import { parseQtestAddress, serveQtest } from '../../src/lab/qtest/server.ts';
import { VirtTarget } from '../../src/lab/qtest/virt-target.ts';

/** Promise.withResolvers, which Node 20 does not have. */
function withResolvers(): { promise: Promise<string>; resolve: (at: string) => void; reject: (error: Error) => void } {
  let [resolve, reject] = [(_: string): void => {}, (_: Error): void => {}];
  const promise = new Promise<string>((yes, no) => {
    [resolve, reject] = [yes, no];
  });
  return { promise, resolve, reject };
}

const session = (): QtestSession => new QtestSession(new VirtTarget());
const ask = (s: QtestSession, ...lines: string[]): string[] => lines.flatMap((line) => s.handle(line));

describe('requests and replies [QEMU system/qtest.c]', () => {
  test('words of every size, little-endian, 16 hexadecimal digits back', () => {
    const s = session();
    expect(
      ask(s, 'writeq 0x40000000 0x1122334455667788', 'readb 0x40000001', 'readw 0x40000002', 'readl 0x40000004'),
    ).toEqual(['OK', 'OK 0x0000000000000077', 'OK 0x0000000000005566', 'OK 0x0000000011223344']);
    expect(ask(s, 'readq 1073741824', 'readq 010000000000')).toEqual([
      'OK 0x1122334455667788',
      'OK 0x1122334455667788',
    ]);
  });

  test('blocks in hexadecimal and base64, memset, endianness', () => {
    const s = session();
    expect(ask(s, 'write 0x40000000 4 0x01020304', 'read 0x40000000 4', 'b64read 0x40000000 4')).toEqual([
      'OK',
      'OK 0x01020304',
      'OK AQIDBA==',
    ]);
    expect(ask(s, 'b64write 0x40000000 2 //8=', 'memset 0x40000002 2 0xaa', 'read 0x40000000 4')).toEqual([
      'OK',
      'OK',
      'OK 0xffffaaaa',
    ]);
    expect(ask(s, 'memset 0x40000000 0 0', 'endianness', 'clock_step', 'clock_set 5', 'clock_step 2')).toEqual([
      'OK',
      'OK little',
      'OK 0',
      'OK 5',
      'OK 7',
    ]);
  });

  test('what nothing answers reads 0; an SMMU register reads its value', () => {
    const s = session();
    expect(ask(s, 'readl 0x100', 'writel 0x100 1', 'readl 0x09050000')).toEqual([
      'OK 0x0000000000000000',
      'OK',
      'OK 0x000000000d44101b',
    ]);
  });

  test('a block over registers is cut into the widest aligned accesses; bytes and words of them read 0 [QEMU memory_access_size]', () => {
    const s = session();
    expect(ask(s, 'read 0x09050000 8', 'read 0x0904fffc 8', 'read 0x09050002 6', 'readb 0x09050000')).toEqual([
      'OK 0x1b10440d10007302',
      'OK 0x000000001b10440d',
      'OK 0x000010007302',
      'OK 0x0000000000000000',
    ]);
    expect(ask(s, 'write 0x09050080 8 0xc0ffffff00000000', 'readq 0x09050080', 'memset 0x09050080 8 0x0')).toEqual([
      'OK',
      'OK 0x00000000ffffffc0',
      'OK',
    ]);
    expect(ask(s, 'readq 0x09050080', 'writeb 0x09050080 0xff', 'readq 0x09050080')).toEqual([
      'OK 0x0000000000000000',
      'OK',
      'OK 0x0000000000000000',
    ]);
  });

  test('a bad request is answered FAIL and the session goes on', () => {
    const s = session();
    for (const line of [
      'frobnicate',
      'readl',
      'readl zz',
      'writel 0x40000000',
      'read 0x40000000 99999999999',
      'write 0x40000000 2 77',
      'readq 0xffffffffffffffff',
      'memset 0x40000000 4 256',
    ])
      expect(s.handle(line)[0]).toMatch(/^FAIL /);
    expect(s.handle('')).toEqual([]);
    expect(s.handle('endianness')).toEqual(['OK little']);
  });

  test('no line crashes a session, and every request gets one reply line at the end', () => {
    const verbs = ['readl', 'writel', 'readq', 'writeq', 'read', 'write', 'b64read', 'b64write', 'memset', 'clock_set'];
    const word = fc.oneof(
      fc.constantFrom('0x40000000', '0x09050090', '0x0906009c', '0x10000000', '0x401000000000', '-1', '0x', 'zz'),
      fc.nat(5000).map(String),
      fc.bigInt(0n, (1n << 64n) - 1n).map((n) => `0x${n.toString(16)}`),
      fc.string({ maxLength: 8 }),
    );
    const line = fc
      .tuple(fc.constantFrom(...verbs), fc.array(word, { maxLength: 4 }))
      .map(([v, w]) => [v, ...w].join(' ').replace(/[\r\n]/g, ''));
    fc.assert(
      fc.property(fc.array(line, { maxLength: 20 }), (lines) => {
        const s = session();
        for (const one of lines) expect(s.handle(one).at(-1)).toMatch(/^(OK|FAIL)/);
      }),
      { numRuns: 50 },
    );
  });
});

describe('the machine [docs/specs/iommu-testdev.rst, hw/arm/virt.c]', () => {
  test('the functions answer in configuration space, high and low ECAM; an absent one reads all ones', () => {
    const s = session();
    const [word, low, behind, absent] = ask(
      s,
      'readl 0x4010008000',
      'readl 0x3f010000',
      'readl 0x4010100000',
      'readl 0x4010018000',
    );
    expect(word).toBe('OK 0x0000000000051b36');
    expect(low).toBe(word);
    expect(behind).toBe(word);
    expect(absent).toBe('OK 0x00000000ffffffff');
  });

  test('a BAR is sized and moved through configuration space', () => {
    const s = session();
    expect(ask(s, 'writel 0x4010008010 0xffffffff', 'readl 0x4010008010')).toEqual(['OK', 'OK 0x00000000fffff000']);
    ask(s, 'writel 0x4010008010 0x10400000');
    expect(ask(s, 'readl 0x10400010', 'readl 0x10000010')).toEqual(['OK 0x00000000ffffffff', 'OK 0x0000000000000000']);
  });

  test('a function behind the root port follows its bus number: another StreamID, another place in ECAM', () => {
    const s = session();
    ask(s, 'writeb 0x4010020019 3', 'writeb 0x401002001a 3');
    expect(ask(s, 'readl 0x4010300000', 'readl 0x4010100000')).toEqual([
      'OK 0x0000000000051b36',
      'OK 0x00000000ffffffff',
    ]);
  });

  const run = (s: QtestSession, bar: string, iova: number, gpa: number, length: number): string | undefined => {
    const at = (offset: number): string => `0x${(Number(bar) + offset).toString(16)}`;
    ask(s, `writel ${at(4)} ${iova}`, `writel ${at(8)} 0`, `writel ${at(0xc)} ${length}`);
    ask(s, `writel ${at(0x1c)} ${gpa}`, `writel ${at(0x20)} 0`, `writel ${at(0x14)} 1`, `readl ${at(0)}`);
    return s.handle(`readl ${at(0x10)}`)[0];
  };

  test('SMMUEN = 0, GBPA.ABORT = 0: DMA passes [6.3.14]; without bus mastering it does not', () => {
    const s = session();
    expect(run(s, '0x10000000', 0x50000000, 0x50000000, 8)).toBe('OK 0x0000000000000000');
    expect(s.handle('read 0x50000000 8')).toEqual(['OK 0x7856341278563412']);
    ask(s, 'writew 0x4010008004 2');
    expect(run(s, '0x10000000', 0x50000000, 0x50000000, 8)).toBe('OK 0x00000000dead0002');
  });

  test('wired interrupts are announced before the reply of the request that caused them', () => {
    const s = session();
    ask(s, 'irq_intercept_in ioapic');
    // GERROR_IRQEN, then a command queue with one reserved opcode: CERROR_ILL.
    ask(s, 'writel 0x09050050 1', 'writeq 0x09050090 0x42a00008', 'writel 0x09050020 8', 'writel 0x42a00000 0xff');
    expect(s.handle('writel 0x09050098 1')).toEqual(['IRQ raise 77', 'IRQ lower 77', 'OK']);
  });
});

describe('the server', () => {
  test('only unix sockets and loopback are addresses', () => {
    expect(parseQtestAddress('unix:/run/x')).toEqual({ kind: 'unix', path: '/run/x' });
    expect(parseQtestAddress('tcp:127.0.0.1:0')).toEqual({ kind: 'tcp', port: 0 });
    for (const bad of ['tcp:0.0.0.0:1', 'tcp:127.0.0.1:70000', 'tcp:127.0.0.1', 'unix:', 'x'])
      expect(parseQtestAddress(bad)).toBeUndefined();
  });

  test.each(['unix', 'tcp'] as const)(
    'pipelined requests over %s are answered in order; each connection has its own machine',
    async (kind) => {
      const address =
        kind === 'tcp' ? { kind, port: 0 } : { kind, path: join(tmpdir(), `smmulab-${process.pid}.sock`) };
      const where = withResolvers();
      const server = serveQtest({
        address,
        target: () => new VirtTarget(),
        listening: where.resolve,
        failed: where.reject,
      });
      const at = await where.promise;
      const talk = (requests: string, replies: number): Promise<string[]> =>
        new Promise((resolve, reject) => {
          const socket = at.startsWith('tcp')
            ? createConnection(Number(at.split(':').at(-1)), '127.0.0.1')
            : createConnection(at.slice(5));
          let text = '';
          socket.on('error', reject);
          socket.on('data', (chunk) => {
            text += chunk.toString();
            const lines = text.split('\n').slice(0, -1);
            if (lines.length >= replies) {
              socket.destroy();
              resolve(lines);
            }
          });
          socket.write(requests);
        });
      expect(await talk('writel 0x40000000 7\r\nreadl 0x40000000\nnonsense\nendianness\n', 4)).toEqual([
        'OK',
        'OK 0x0000000000000007',
        "FAIL Unknown command 'nonsense'",
        'OK little',
      ]);
      expect(await talk('readl 0x40000000\n', 1)).toEqual(['OK 0x0000000000000000']);
      await new Promise<void>((done) => server.stop(done));
    },
  );
});

/** A server whose sessions count the blocks they read, and a connection to it. */
async function served(): Promise<{ socket: Socket; reads: () => number; stop: () => Promise<void> }> {
  let count = 0;
  class Counting extends VirtTarget {
    override readBytes(addr: bigint, length: number): Uint8Array {
      count++;
      return super.readBytes(addr, length);
    }
  }
  const where = withResolvers();
  const server = serveQtest({
    address: { kind: 'tcp', port: 0 },
    target: () => new Counting(),
    listening: where.resolve,
    failed: where.reject,
  });
  const socket = createConnection(Number((await where.promise).split(':').at(-1)), '127.0.0.1');
  return { socket, reads: () => count, stop: () => new Promise<void>((done) => server.stop(done)) };
}

describe('a client that means ill', () => {
  test('asks for two hundred megabytes of replies and does not read them: they are not made before it does', async () => {
    const { socket, reads, stop } = await served();
    const requests = 100;
    socket.write('read 0x40000000 1048576\n'.repeat(requests));
    let bytes = 0;
    const first = new Promise<void>((resolve) =>
      socket.once('readable', () => {
        bytes += (socket.read(1) as Buffer | null)?.length ?? 0;
        resolve();
      }),
    );
    await first;
    // Whatever the server would make, it makes now.
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(reads()).toBeLessThan(50);
    const reply = 'OK 0x'.length + 2 * 1048576 + 1;
    await new Promise<void>((resolve) => {
      socket.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes === requests * reply) resolve();
      });
      socket.resume();
    });
    expect(reads()).toBe(requests);
    socket.destroy();
    await stop();
  });

  test('sends a line without end: earlier lines are answered, then FAIL, then the connection closes', async () => {
    const { socket, stop } = await served();
    let text = '';
    const closed = new Promise<void>((resolve) => socket.on('end', resolve));
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    socket.write('endianness\n');
    const part = 'x'.repeat(1 << 20);
    for (let sent = 0; sent <= MAX_LINE; sent += part.length) socket.write(part);
    await closed;
    expect(text.split('\n')).toEqual(['OK little', `FAIL the line is longer than ${MAX_LINE} characters`, '']);
    socket.destroy();
    await stop();
  });

  test('sends bytes that are no text, and goes away in the middle of a line: others are served', async () => {
    const { socket, stop } = await served();
    const reply = new Promise<string>((resolve) => socket.once('data', (chunk: Buffer) => resolve(chunk.toString())));
    socket.write(Buffer.from([0, 0xff, 0x80, 0x0d, 0x1b, 0x0a]));
    expect(await reply).toMatch(/^FAIL /);
    socket.write('readl 0x400');
    socket.destroy();
    await stop();
    const other = await served();
    const answer = new Promise<string>((resolve) => other.socket.once('data', (c: Buffer) => resolve(c.toString())));
    other.socket.write('endianness\n');
    expect(await answer).toBe('OK little\n');
    other.socket.destroy();
    await other.stop();
  });
});
