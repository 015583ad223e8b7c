/** Whether a key with these patterns reaches a queue or a topic of this name. */
export function reaches(keyPatterns: readonly string[], name: string): boolean {
  if (keyPatterns.length === 0) return true;
  for (const pattern of keyPatterns) {
    if (pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern) return true;
  }
  return false;
}
