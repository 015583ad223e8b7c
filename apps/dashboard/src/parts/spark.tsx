import type { JSX } from 'preact';

const WIDTH = 96;
const HEIGHT = 24;

/** A small picture of the last hour: bars for what came in, and a line for what went out. */
export function Spark({ hour }: { hour: readonly { in: number; out: number; failed: number }[] }): JSX.Element | null {
  const most = Math.max(...hour.flatMap((one) => [one.in, one.out]));
  if (most === 0) return <span class="muted">–</span>;
  const step = WIDTH / hour.length;
  const height = (value: number): number => (value / most) * (HEIGHT - 2);
  const points = hour.map((one, index) => `${(index + 0.5) * step},${HEIGHT - 1 - height(one.out)}`).join(' ');
  const total = (figure: 'in' | 'out' | 'failed'): number => hour.reduce((sum, one) => sum + one[figure], 0);
  return (
    <svg
      class="spark"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      width={WIDTH}
      height={HEIGHT}
      role="img"
      aria-label={`Last hour: ${total('in')} in, ${total('out')} out, ${total('failed')} failed`}
    >
      {hour.map((one, index) => (
        <rect
          key={index}
          class={one.failed > 0 ? 'bar failed' : 'bar'}
          x={index * step + 1}
          y={HEIGHT - 1 - height(one.in)}
          width={step - 2}
          height={height(one.in) + 1}
        />
      ))}
      <polyline points={points} class="line" />
    </svg>
  );
}
