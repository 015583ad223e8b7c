# One image for every app: the broker by default; the command chooses another (see docker-compose.yml).
FROM node:24-slim AS build
WORKDIR /app
COPY . .
RUN npm ci --no-audit --no-fund && npm run build
# Only what the programs below need stays.
RUN npm ci --omit=dev --no-audit --no-fund --workspace @rowmq/broker --workspace @rowmq/reaper --workspace @rowmq/launcher

FROM node:24-slim
ENV NODE_ENV=production
WORKDIR /app
# Owned by root, run by node: the program cannot change itself.
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/apps apps
COPY --from=build /app/libs libs
COPY --from=build /app/migrations migrations
COPY --from=build /app/tools tools
USER node
# Inside a container loopback is out of everyone's reach; the broker insists on ROWMQ_ADMIN_KEY with this.
ENV ROWMQ_HOST=0.0.0.0 ROWMQ_PORT=8080
EXPOSE 8080
# Whether the process runs, not whether its database does: what restarts unhealthy containers would end every broker when the database is away.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.ROWMQ_PORT}/health/live`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "apps/broker/dist/main.js"]
