from pipeline.hub.snapshots import main

raise SystemExit(main())
