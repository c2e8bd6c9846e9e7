/* tests/flux/test-sampler.c: text to picture. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * That the pictures are diffusers' is tests/parity's to show; here is what must and must
 * not change them. */
#include "flux/sample/sampler.h"
#include "tests/flux/trainer-common.h"

typedef struct {
  FluxModel *model;
  FluxSampler *sampler;
  FluxSampleRequest r;
} Fixture;

static void
setup (Fixture *f, gconstpointer data)
{
  g_autofree char *dir = test_model_dir ();
  g_autoptr (GError) error = NULL;

  f->model = test_model ();
  f->sampler = flux_sampler_new (f->model, dir, FX_Q_NONE, &error);
  g_assert_no_error (error);
  f->r = (FluxSampleRequest){.prompt = "red apple",
      .width = 64,
      .height = 48,
      .steps = 4,
      .guidance = 3.5,
      .seed = 3,
      .noise_dtype = FX_F32,
      .max_sequence_length = 32};
}

static void
teardown (Fixture *f, gconstpointer data)
{
  flux_sampler_free (f->sampler);
  flux_model_unref (f->model);
}

static GBytes *
picture (Fixture *f)
{
  gsize n = 3 * (gsize)f->r.width * (gsize)f->r.height;
  guint8 *rgb = g_malloc0 (n);
  g_autoptr (GError) error = NULL;

  flux_sampler_run (f->sampler, &f->r, rgb, 3 * f->r.width, FALSE, NULL, NULL, &error);
  g_assert_no_error (error);
  return g_bytes_new_take (rgb, n);
}

/* Whether the picture is the same as `first` after a change of the request. */
static gboolean
same_as (Fixture *f, GBytes *first)
{
  g_autoptr (GBytes) p = picture (f);

  return g_bytes_equal (p, first);
}

static void
test_what_changes_it (Fixture *f, gconstpointer data)
{
  g_autoptr (GBytes) first = picture (f);
  FluxSampleRequest r = f->r;

  g_assert_true (same_as (f, first));
  f->r.seed++;
  g_assert_false (same_as (f, first));
  f->r = r;
  f->r.prompt = "cat face";
  g_assert_false (same_as (f, first));
  f->r = r;
  f->r.guidance = 1;
  g_assert_false (same_as (f, first));
  f->r = r;
  f->r.steps = 5;
  g_assert_false (same_as (f, first));
  f->r = r;
  f->r.noise_dtype = FX_BF16;
  g_assert_false (same_as (f, first));
  f->r = r;
  f->r.max_sequence_length = 16;
  g_assert_false (same_as (f, first));
  f->r = r;
  flux_sampler_set_keep_models (f->sampler, FALSE);
  g_assert_true (same_as (f, first));
  g_assert_true (same_as (f, first)); /* from the prompt that was kept */
}

static void
test_sizes (Fixture *f, gconstpointer data)
{
  static const int sizes[][3] = {{16, 16, 1}, {16, 96, 1}, {80, 48, 1}, {24, 32, 0},
      {0, 16, 0}, {-16, 16, 0}, {16, 1 << 20, 0}};
  g_autofree guint8 *rgb = g_malloc0 (3 * 96 * 96);

  f->r.steps = 1;
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autoptr (GError) error = NULL;
    gboolean ok;

    f->r.width = sizes[i][0];
    f->r.height = sizes[i][1];
    ok = flux_sampler_run (f->sampler, &f->r, rgb, 3 * 96, FALSE, NULL, NULL, &error);
    g_assert_cmpint (ok, ==, sizes[i][2]);
    if (!ok)
      g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  }
}

static void
test_settings (Fixture *f, gconstpointer data)
{
  g_autofree guint8 *rgb = g_malloc0 (3 * 64 * 48);

  for (int kind = 0; kind < 4; kind++) {
    FluxSampleRequest r = f->r;
    g_autoptr (GError) error = NULL;

    if (kind == 0)
      r.steps = 0;
    else if (kind == 1)
      r.guidance = NAN;
    else if (kind == 2)
      r.max_sequence_length = -1;
    else
      r.noise_dtype = FX_U8;
    g_assert_false (
        flux_sampler_run (f->sampler, &r, rgb, 3 * 64, FALSE, NULL, NULL, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  }
}

/* The stride is the caller's: bytes beyond a row are left alone. */
static void
test_stride (Fixture *f, gconstpointer data)
{
  g_autoptr (GBytes) first = picture (f);
  int stride = 3 * f->r.width + 5;
  g_autofree guint8 *rgb = g_malloc (stride * (gsize)f->r.height);
  const guint8 *p = g_bytes_get_data (first, NULL);

  memset (rgb, 77, stride * (gsize)f->r.height);
  g_assert_true (
      flux_sampler_run (f->sampler, &f->r, rgb, stride, FALSE, NULL, NULL, NULL));
  for (int y = 0; y < f->r.height; y++) {
    g_assert_cmpmem (
        rgb + y * stride, 3 * f->r.width, p + 3 * y * f->r.width, 3 * f->r.width);
    for (int x = 3 * f->r.width; x < stride; x++)
      g_assert_cmpint (rgb[y * stride + x], ==, 77);
  }
}

typedef struct {
  int calls, last, stop_at;
} Calls;

static gboolean
count_calls (int step, int steps, gpointer data)
{
  Calls *c = data;

  c->calls++;
  c->last = step;
  return step != c->stop_at;
}

static void
test_cancel (Fixture *f, gconstpointer data)
{
  g_autoptr (GBytes) first = picture (f);
  g_autofree guint8 *rgb = g_malloc0 (3 * 64 * 48);
  g_autoptr (GError) error = NULL;
  Calls c = {0, 0, 2};

  g_assert_false (
      flux_sampler_run (f->sampler, &f->r, rgb, 3 * 64, FALSE, count_calls, &c, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED);
  g_assert_cmpint (c.calls, ==, 2);
  g_clear_error (&error);
  c = (Calls){0, 0, -1};
  g_assert_true (
      flux_sampler_run (f->sampler, &f->r, rgb, 3 * 64, FALSE, count_calls, &c, &error));
  g_assert_cmpint (c.calls, ==, f->r.steps);
  g_assert_cmpint (c.last, ==, f->r.steps);
  g_assert_cmpmem (rgb, 3 * 64 * 48, g_bytes_get_data (first, NULL), 3 * 64 * 48);
}

typedef struct {
  int calls, stop_at;
  int layers, blocks; /* of calls, those without a percentage, by whom */
} Progress;

static gboolean
count_progress (const char *what, gint percent, gpointer data)
{
  Progress *p = data;

  if (percent < 0 && strcmp (what, "transformer") == 0)
    p->blocks++;
  else if (percent < 0)
    p->layers++;
  return ++p->calls != p->stop_at;
}

/* While the text encoders load (the first and the last call), before their first and
 * their last layer; before any step. Then a picture is the same as ever. */
static void
test_cancel_texts (Fixture *f, gconstpointer data)
{
  g_autoptr (GBytes) first = NULL;
  g_autofree guint8 *rgb = g_malloc0 (3 * 64 * 48);
  g_autofree char *dir = test_model_dir ();
  Progress whole = {0};
  int loading;

  flux_sampler_set_keep_models (f->sampler, FALSE);
  first = picture (f);
  flux_sampler_set_progress (f->sampler, count_progress, &whole);
  f->r.prompt = "cat face";
  g_bytes_unref (picture (f));
  loading = whole.calls - whole.layers - whole.blocks;
  g_assert_cmpint (loading, >, 2);
  g_assert_cmpint (whole.layers, >, 1);
  for (int i = 0; i < 4; i++) {
    const int stops[] = {1, loading, loading + 1, loading + whole.layers};
    g_autoptr (FluxSampler) sampler = flux_sampler_new (f->model, dir, FX_Q_NONE, NULL);
    g_autoptr (GError) error = NULL;
    Progress p = {.stop_at = stops[i]};
    Calls steps = {0, 0, -1};

    flux_sampler_set_progress (sampler, count_progress, &p);
    g_assert_false (flux_sampler_run (
        sampler, &f->r, rgb, 3 * 64, FALSE, count_calls, &steps, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED);
    g_assert_cmpint (p.calls, ==, stops[i]);
    g_assert_cmpint (steps.calls, ==, 0);
    g_clear_error (&error);
    f->r.prompt = "red apple";
    flux_sampler_run (sampler, &f->r, rgb, 3 * 64, FALSE, NULL, NULL, &error);
    g_assert_no_error (error);
    g_assert_cmpmem (rgb, 3 * 64 * 48, g_bytes_get_data (first, NULL), 3 * 64 * 48);
    f->r.prompt = "cat face";
  }
}

/* Between two blocks of the third step, and in the first: the next picture is whole. */
static void
test_cancel_blocks (Fixture *f, gconstpointer data)
{
  g_autoptr (GBytes) first = picture (f);
  g_autofree guint8 *rgb = g_malloc0 (3 * 64 * 48);
  Progress whole = {0};
  int blocks;

  flux_sampler_set_progress (f->sampler, count_progress, &whole);
  g_assert_true (same_as (f, first));
  blocks = whole.blocks / f->r.steps;
  g_assert_cmpint (whole.blocks, ==, whole.calls);
  g_assert_cmpint (blocks, >, 1);
  for (int i = 0; i <= 2; i += 2) {
    g_autoptr (GError) error = NULL;
    Progress p = {.stop_at = i * blocks + 2};
    Calls steps = {0, 0, -1};

    flux_sampler_set_progress (f->sampler, count_progress, &p);
    g_assert_false (flux_sampler_run (
        f->sampler, &f->r, rgb, 3 * 64, FALSE, count_calls, &steps, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED);
    g_assert_cmpint (p.calls, ==, p.stop_at);
    g_assert_cmpint (steps.calls, ==, i);
    g_assert_true (same_as (f, first));
  }
}

/* Adapters with effects of their own: A is drawn, and B is given values. */
static FluxLora *
make_lora (Fixture *f, guint64 seed, float multiplier)
{
  g_autoptr (GError) error = NULL;
  fx_backend *b = flux_model_get_backend (f->model);
  FluxLora *lora =
      flux_lora_new (test_config (f->model), b, 4, 4, "attention", FALSE, &error);
  gsize n = flux_lora_n_flat (lora);
  g_autofree float *x = g_new (float, n);

  g_assert_no_error (error);
  fx_philox_normal (seed, 0, 0, 0, x, n);
  for (gsize i = 0; i < n; i++)
    x[i] *= 0.1f;
  g_assert_cmpint (
      fx_upload (b, flux_lora_parameters (lora), x, n * sizeof (float)), ==, FX_OK);
  flux_lora_set_multiplier (lora, multiplier);
  return lora;
}

static double
difference (GBytes *a, GBytes *b)
{
  gsize n;
  const guint8 *x = g_bytes_get_data (a, &n), *y = g_bytes_get_data (b, NULL);
  double sum = 0;

  for (gsize i = 0; i < n; i++)
    sum += (x[i] - y[i]) * (x[i] - y[i]);
  return sqrt (sum / (double)n);
}

static void
test_loras (Fixture *f, gconstpointer data)
{
  g_autoptr (GBytes) none = picture (f);
  FluxLora *one = make_lora (f, 1, 1), *half = make_lora (f, 1, 0.5f),
           *half2 = make_lora (f, 1, 0.5f), *off = make_lora (f, 2, 0);
  FluxLora *sets[][3] = {{one}, {half, half2, off}, {off}};
  guint counts[] = {1, 3, 1};
  g_autoptr (GBytes) p0 = NULL;
  g_autoptr (GBytes) p1 = NULL;
  g_autoptr (GBytes) p2 = NULL;
  GBytes **p[] = {&p0, &p1, &p2};

  for (guint i = 0; i < 3; i++) {
    g_assert_true (flux_sampler_set_loras (f->sampler, sets[i], counts[i], NULL));
    *p[i] = picture (f);
  }
  g_assert_true (flux_sampler_set_loras (f->sampler, NULL, 0, NULL));
  g_assert_true (same_as (f, none));
  g_assert_cmpfloat (difference (none, p0), >, 2);   /* it has an effect */
  g_assert_cmpfloat (difference (p0, p1), <, 0.5);   /* two halves are one */
  g_assert_cmpfloat (difference (none, p2), <, 0.2); /* at 0 it has none */
  flux_lora_free (one);
  flux_lora_free (half);
  flux_lora_free (half2);
  flux_lora_free (off);
}

typedef struct {
  FluxModel *model;
  int turns; /* how often the other thread got the model */
  gboolean stop;
} Other;

static gpointer
take_turns (gpointer data)
{
  Other *o = data;

  while (!g_atomic_int_get (&o->stop)) {
    flux_model_lock (o->model);
    g_atomic_int_inc (&o->turns);
    flux_model_unlock (o->model);
    g_usleep (100);
  }
  return NULL;
}

typedef struct {
  Other *other;
  int first, last;
} Turns;

static gboolean
note_turns (int step, int steps, gpointer data)
{
  Turns *t = data;

  g_usleep (2000);
  if (step == 1)
    t->first = g_atomic_int_get (&t->other->turns);
  t->last = g_atomic_int_get (&t->other->turns);
  return TRUE;
}

static void
test_lock (Fixture *f, gconstpointer data)
{
  g_autofree guint8 *rgb = g_malloc0 (3 * 64 * 48);

  for (int keep = 0; keep < 2; keep++) {
    Other other = {f->model, 0, FALSE};
    Turns turns = {&other, 0, 0};
    GThread *thread = g_thread_new ("other", take_turns, &other);

    g_assert_true (flux_sampler_run (
        f->sampler, &f->r, rgb, 3 * 64, keep, note_turns, &turns, NULL));
    g_atomic_int_set (&other.stop, TRUE);
    g_thread_join (thread);
    if (keep)
      g_assert_cmpint (turns.last, ==, turns.first);
    else
      g_assert_cmpint (turns.last, >, turns.first);
  }
}

static void
test_encode_ahead (Fixture *f, gconstpointer data)
{
  g_autoptr (GBytes) first = picture (f);
  const char *prompts[] = {"red apple", "cat face", ""};

  flux_sampler_set_keep_models (f->sampler, FALSE);
  g_assert_true (flux_sampler_encode (f->sampler, prompts, 3, 32, NULL));
  g_assert_true (same_as (f, first));
}

/* torch.randn's stream in the dtype asked for, packed 2 x 2. */
static void
test_noise (Fixture *f, gconstpointer data)
{
  enum { C = 16, H = 4, W = 6, N = C * H * W };
  static const fx_dtype dtypes[] = {FX_F32, FX_BF16, FX_F16};

  for (guint d = 0; d < 3; d++) {
    g_autofree fx_torch_rng *rng = g_new (fx_torch_rng, 1);
    guint16 half[N];
    float want[N], packed[N], got[N];

    fx_torch_seed (rng, 42);
    if (dtypes[d] == FX_F32)
      fx_torch_randn (rng, want, FX_F32, N);
    else {
      fx_torch_randn (rng, half, dtypes[d], N);
      fx_convert (want, FX_F32, half, dtypes[d], N);
    }
    flux_sampler_noise (42, dtypes[d], C, H, W, packed);
    flux_unpack_latents (packed, C, H, W, got);
    g_assert_cmpmem (got, sizeof got, want, sizeof want);
    g_assert_cmpfloat (packed[1], ==, want[1]); /* channel 0: (0, 0), (0, 1), (1, 0) */
    g_assert_cmpfloat (packed[2], ==, want[W]);
  }
}

static void
test_missing_parts (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (flux_sampler_new (f->model, "/nonexistent", FX_Q_NONE, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, "/nonexistent"));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
#define ADD(name, func)                                                                  \
  g_test_add ("/sampler/" name, Fixture, NULL, setup, func, teardown)
  ADD ("what-changes-the-picture", test_what_changes_it);
  ADD ("sizes", test_sizes);
  ADD ("settings", test_settings);
  ADD ("stride", test_stride);
  ADD ("cancel", test_cancel);
  ADD ("cancel-texts", test_cancel_texts);
  ADD ("cancel-blocks", test_cancel_blocks);
  ADD ("several-adapters", test_loras);
  ADD ("lock", test_lock);
  ADD ("encode-ahead", test_encode_ahead);
  ADD ("noise", test_noise);
  ADD ("missing-parts", test_missing_parts);
  return g_test_run ();
}
