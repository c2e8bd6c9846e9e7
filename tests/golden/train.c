/* tests/golden/train.c: gradients, losses and adapters of whole training runs.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * RUN.losses, .grad_norms, .grad0.KEY, .final.KEY, .state0.*; it starts from
 * RUN.init.KEY, else lora_init.KEY. Metadata `train` has the micro-steps and the
 * settings, metadata RUN overrules them. */
#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/train/trainer-private.h"
#include "tests/golden/parity.h"

static const double GRADIENT = 1e-4, ADAPTER = 1e-3;

/* One micro-step. */
typedef struct {
  float *latent, *noise, *prompt_embeds, *pooled;
  FluxTrial trial;
} Micro;

typedef struct {
  Parity *p;
  const char *name;
  char *init;              /* prefix of the values it starts from */
  JsonObject *train, *own; /* own: may be NULL */
  FluxModel *model;
  FluxTransformer *base;
  FluxTrainConfig c;
  char *targets;
  GArray *micros; /* Micro */
  double loss_bound;
} Run;

static void
micro_clear (gpointer data)
{
  Micro *m = data;

  g_free (m->latent);
  g_free (m->noise);
  g_free (m->prompt_embeds);
  g_free (m->pooled);
}

static void
run_clear (Run *r)
{
  g_free (r->init);
  g_free (r->targets);
  g_clear_pointer (&r->train, json_object_unref);
  g_clear_pointer (&r->own, json_object_unref);
  g_clear_pointer (&r->model, flux_model_unref);
  g_clear_pointer (&r->micros, g_array_unref);
}

static gboolean
incomplete (const char *what, GError **error)
{
  g_set_error (
      error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND, "the golden data have no %s", what);
  return FALSE;
}

/* ---- what it does ---- */

/* The run's own setting, else that of all runs. */
static double
setting (Run *r, const char *name, const char *common, double fallback)
{
  if (r->own != NULL && json_object_has_member (r->own, name))
    return parity_number (r->own, name, fallback);
  return parity_number (r->train, common, fallback);
}

static double
beta (Run *r, guint i, double fallback)
{
  JsonObject *o =
      r->own != NULL && json_object_has_member (r->own, "betas") ? r->own : r->train;
  JsonNode *node = json_object_get_member (o, "betas");

  if (node == NULL || !JSON_NODE_HOLDS_ARRAY (node) ||
      json_array_get_length (json_node_get_array (node)) <= i)
    return fallback;
  return json_array_get_double_element (json_node_get_array (node), i);
}

static FluxWeightingScheme
weighting (Run *r)
{
  static const char *const names[] = {[FLUX_WEIGHTING_NONE] = "none",
      [FLUX_WEIGHTING_LOGIT_NORMAL] = "logit_normal",
      [FLUX_WEIGHTING_MODE] = "mode",
      [FLUX_WEIGHTING_SIGMA_SQRT] = "sigma_sqrt",
      [FLUX_WEIGHTING_COSMAP] = "cosmap"};
  const char *name =
      r->own != NULL && json_object_has_member (r->own, "weighting")
          ? json_object_get_string_member_with_default (r->own, "weighting", "none")
          : "none";

  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    if (g_strcmp0 (name, names[i]) == 0)
      return (FluxWeightingScheme)i;
  }
  return FLUX_WEIGHTING_NONE;
}

static void
configure (Run *r)
{
  FluxTrainConfig *c = &r->c;

  flux_train_config_init (c);
  c->rank = parity_rank (r->p, r->init);
  c->alpha = (float)setting (r, "alpha", "alpha", c->rank);
  c->targets = r->targets;
  c->optimizer = strstr (r->name, "adamw8bit") != NULL ? FLUX_OPTIMIZER_ADAMW8BIT
                                                       : FLUX_OPTIMIZER_ADAMW;
  c->learning_rate = setting (r, "lr", "lr", 1e-4);
  c->beta1 = beta (r, 0, 0.9);
  c->beta2 = beta (r, 1, 0.999);
  c->epsilon = setting (r, "eps", "eps", 1e-8);
  c->weight_decay = setting (r, "weight_decay", "weight_decay", 1e-4);
  c->accumulate = (guint)setting (r, "accumulation", "accumulation", 1);
  c->max_grad_norm = setting (r, "clip", "max_grad_norm", 1);
  c->max_steps = 1000;
  c->weighting = weighting (r);
}

static gboolean
read_micro (Run *r, guint index, JsonObject *step, GError **error)
{
  Parity *p = r->p;
  const FluxConfig *c = flux_transformer_get_config (r->base);
  gint64 image = (gint64)parity_number (step, "image", -1);
  gint64 text = (gint64)parity_number (step, "text", -1);
  const FluxTensor *shape = parity_find (p, "train.noise.%u", index);
  gsize n_latent = 0, n_noise = 0, n_prompt = 0, n_pooled = 0;
  Micro m = {
      .latent = parity_floats (p, &n_latent, "vae.%" G_GINT64_FORMAT ".latent", image),
      .noise = parity_floats (p, &n_noise, "train.noise.%u", index),
      .prompt_embeds =
          parity_floats (p, &n_prompt, "text.%" G_GINT64_FORMAT ".prompt_embeds", text),
      .pooled = parity_floats (p, &n_pooled, "text.%" G_GINT64_FORMAT ".pooled", text)};
  float sigma = (float)parity_number (step, "sigma", 0);

  g_array_append_val (r->micros, m);
  if (m.latent == NULL || m.noise == NULL || m.prompt_embeds == NULL ||
      m.pooled == NULL || shape->n_dims != 4 || n_latent != n_noise ||
      n_pooled != (gsize)c->pooled_projection_dim ||
      n_prompt % (gsize)c->joint_attention_dim != 0)
    return incomplete ("complete micro-steps for this model", error);
  g_array_index (r->micros, Micro, index).trial = (FluxTrial){.latent = m.latent,
      .noise = m.noise,
      .channels = (int)shape->dims[1],
      .height = (int)shape->dims[2],
      .width = (int)shape->dims[3],
      .prompt_embeds = m.prompt_embeds,
      .pooled = m.pooled,
      .text_tokens = (int)(n_prompt / (gsize)c->joint_attention_dim),
      .sigma = sigma,
      .timestep = sigma,
      .guidance = (float)(r->own != NULL && json_object_has_member (r->own, "guidance")
                              ? parity_number (r->own, "guidance", 1)
                              : parity_number (step, "guidance", 1)),
      .weight = (float)flux_loss_weight (r->c.weighting, (double)sigma)};
  return TRUE;
}

static gboolean
read_micros (Run *r, GError **error)
{
  JsonNode *node = json_object_get_member (r->train, "steps");
  JsonArray *steps;

  r->micros = g_array_new (FALSE, TRUE, sizeof (Micro));
  g_array_set_clear_func (r->micros, micro_clear);
  if (node == NULL || !JSON_NODE_HOLDS_ARRAY (node))
    return incomplete ("list of micro-steps", error);
  steps = json_node_get_array (node);
  for (guint i = 0; i < json_array_get_length (steps); i++) {
    if (!read_micro (r, i, json_array_get_object_element (steps, i), error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
run_read (Run *r, GError **error)
{
  g_autofree char *own_init = g_strdup_printf ("%s.init", r->name);

  r->train = parity_settings (r->p, "train");
  r->own = parity_settings (r->p, "%s", r->name);
  r->init = g_strdup (parity_rank (r->p, own_init) > 0 ? own_init : "lora_init");
  r->loss_bound = strcmp (r->name, "train_hard") == 0 ? 1e-3 : 1e-4;
  if (r->train == NULL)
    return incomplete ("metadata 'train'", error);
  r->model = parity_model (r->p, parity_base_of (r->own, r->name), error);
  if (r->model == NULL)
    return FALSE;
  r->base = flux_model_get_transformer (r->model);
  r->targets = parity_targets (r->p, r->base, r->init);
  if (*r->targets == '\0')
    return incomplete ("adapter to start from", error);
  configure (r);
  return read_micros (r, error);
}

/* ---- the gradient of the first micro-step ---- */

static void
pack_micro (const FluxTrial *t, FluxMicro *micro, float *x, float *target)
{
  gsize n = (gsize)t->channels * (gsize)t->height * (gsize)t->width;
  g_autofree float *values = g_new (float, n);

  for (gsize i = 0; i < n; i++)
    values[i] = (1.0f - t->sigma) * t->latent[i] + t->sigma * t->noise[i];
  flux_pack_latents (values, t->channels, t->height, t->width, x);
  for (gsize i = 0; i < n; i++)
    values[i] = t->noise[i] - t->latent[i];
  flux_pack_latents (values, t->channels, t->height, t->width, target);
  *micro = (FluxMicro){.in = {.latents = x,
                           .grid_height = t->height / 2,
                           .grid_width = t->width / 2,
                           .prompt_embeds = t->prompt_embeds,
                           .text_tokens = t->text_tokens,
                           .pooled = t->pooled,
                           .timestep = t->timestep,
                           .guidance = t->guidance},
      .target = target,
      .weight = t->weight};
}

static gboolean
first_gradient (Run *r, ParityError *e, const char *prefix, GError **error)
{
  const FluxTrial *t = &g_array_index (r->micros, Micro, 0).trial;
  gsize n = (gsize)t->channels * (gsize)t->height * (gsize)t->width, bytes;
  g_autofree float *x = g_new (float, n), *target = g_new (float, n), *flat = NULL;
  g_autoptr (FluxLora) lora =
      parity_new_adapter (r->p, r->base, r->init, r->c.alpha, TRUE, error);
  g_autoptr (FluxRun) run = NULL;
  FluxMicro micro;
  double loss;
  int status;

  if (lora == NULL)
    return FALSE;
  pack_micro (t, &micro, x, target);
  run = flux_run_new (r->base, FLUX_RUN_RECOMPUTE, t->text_tokens,
      micro.in.grid_height * micro.in.grid_width, 1, &lora, 1, error);
  if (run == NULL || !flux_run_gradients (run, &micro, 1, 1, TRUE, &loss, error))
    return FALSE;
  bytes = flux_lora_n_flat (lora) * sizeof (float);
  flat = g_malloc (bytes);
  status = fx_download (
      flux_model_get_backend (r->model), flat, flux_lora_gradients (lora), bytes);
  if (status != FX_OK)
    flux_error_from_fx (error, status, prefix);
  return status == FX_OK && parity_add_adapter (r->p, e, lora, prefix, flat, error);
}

static void
compare_gradient (Run *r)
{
  g_autofree char *prefix = g_strdup_printf ("%s.grad0", r->name);
  g_autoptr (GError) error = NULL;
  ParityError e = {0};

  if (parity_rank (r->p, prefix) == 0)
    return;
  if (first_gradient (r, &e, prefix, &error))
    parity_judge (r->p, prefix, &e, GRADIENT);
  else
    parity_fail (r->p, prefix, &error);
}

/* ---- the run ---- */

/* Worst of n numbers, each relative to itself. */
static void
compare_series (Run *r, const char *name, const double *got, guint n_got)
{
  g_autofree char *group = g_strdup_printf ("%s.%s", r->name, name);
  gsize n = 0;
  g_autofree float *want = parity_floats (r->p, &n, "%s", group);
  g_autofree char *what = NULL;
  double worst = 0;
  gsize at = 0;

  if (want == NULL)
    return;
  if (n != n_got) {
    parity_skip (r->p, group, "it has another length than the list of micro-steps");
    return;
  }
  for (gsize i = 0; i < n; i++) {
    double error = fabs (got[i] - (double)want[i]) / fabs ((double)want[i]);
    if (error > worst || isnan (error)) {
      worst = isnan (error) ? INFINITY : error;
      at = i;
    }
  }
  what = g_strdup_printf (
      "worst of %" G_GSIZE_FORMAT " relative (number %" G_GSIZE_FORMAT ")", n, at);
  parity_value (r->p, group, what, worst, r->loss_bound * r->p->slack, FALSE);
}

/* |D - Dref| / |Dref| with D = final - init. */
static void
compare_final (Run *r, FluxTrainer *trainer)
{
  Parity *p = r->p;
  FluxLora *lora = flux_trainer_get_lora (trainer);
  g_autofree char *prefix = g_strdup_printf ("%s.final", r->name);
  g_autoptr (GError) error = NULL;
  gsize n = flux_lora_n_flat (lora);
  g_autofree float *got = g_new (float, n), *want = NULL, *init = NULL;
  double difference = 0, norm = 0;

  if (parity_rank (p, prefix) == 0)
    return;
  want = parity_read_adapter (p, lora, prefix, &error);
  init = want != NULL ? parity_read_adapter (p, lora, r->init, &error) : NULL;
  if (init == NULL) {
    parity_fail (p, prefix, &error);
    return;
  }
  if (fx_download (flux_model_get_backend (r->model), got, flux_lora_parameters (lora),
          n * sizeof (float)) != FX_OK) {
    parity_fail_fx (p, prefix);
    return;
  }
  for (gsize i = 0; i < n; i++) {
    double d = (double)got[i] - (double)want[i], ref = (double)want[i] - (double)init[i];
    difference += d * d;
    norm += ref * ref;
  }
  parity_value (p, prefix, "|D - Dref| / |Dref|", sqrt (difference / norm),
      ADAPTER * p->slack, FALSE);
}

/* One piece of the optimiser's state of one tensor. */
static void
compare_piece (Run *r, const FluxAdamPiece *piece)
{
  Parity *p = r->p;
  g_autofree char *group = g_strdup_printf ("%s.state0.%s", r->name, piece->name);
  const FluxTensor *want = parity_find (p, "%s", group);
  gsize bytes = piece->n * fx_dtype_size (piece->dtype);
  g_autofree void *got = g_malloc (bytes);

  if (want == NULL || want->n_elements != piece->n || want->dtype != piece->dtype)
    parity_skip (p, group, "absent, or of another type or length");
  else if (fx_download (flux_model_get_backend (r->model), got, piece->p, bytes) != FX_OK)
    parity_fail_fx (p, group);
  else if (piece->dtype == FX_U8)
    parity_compare_codes (p, group, got, want->data, piece->n);
  else
    parity_compare (p, group, got, want->data, piece->n, r->loss_bound);
}

static void
compare_state (Run *r, FluxTrainer *trainer)
{
  const char *key = parity_metadata (r->p, "%s.state0", r->name);
  FluxLora *lora = flux_trainer_get_lora (trainer);
  guint n;
  const FluxLoraTensor *tensors = flux_lora_get_tensors (lora, &n);

  if (key == NULL)
    return;
  for (guint i = 0; i < n; i++) {
    g_autofree char *name = g_strdup_printf ("transformer.%s.lora_%c.weight",
        flux_lora_get_slot (lora, tensors[i].slot)->name, tensors[i].is_b ? 'B' : 'A');
    FluxAdamPiece pieces[4];
    guint n_pieces;
    if (strcmp (name, key) != 0)
      continue;
    n_pieces = flux_adam_pieces (trainer->adam, i, pieces);
    for (guint j = 0; j < n_pieces; j++)
      compare_piece (r, &pieces[j]);
  }
  /* The maps are compared under adam8. */
  parity_find (r->p, "%s.state0.qmap1", r->name);
  parity_find (r->p, "%s.state0.qmap2", r->name);
}

static gboolean
train (Run *r, FluxTrainer *trainer, double *losses, double *norms, GError **error)
{
  guint n = r->micros->len, window = r->c.accumulate;
  gboolean ok = TRUE;

  if (!parity_set_adapter (r->p, flux_model_get_backend (r->model),
          flux_trainer_get_lora (trainer), r->init, error))
    return FALSE;
  flux_model_lock (r->model);
  for (guint i = 0; i < n && ok; i += window) {
    g_autofree FluxTrial *trials = g_new0 (FluxTrial, window);
    FluxStepResult result;
    guint count = MIN (window, n - i);
    for (guint j = 0; j < count; j++)
      trials[j] = g_array_index (r->micros, Micro, i + j).trial;
    ok = flux_trainer_step_trials (trainer, trials, count, losses + i, &result, error);
    if (ok)
      norms[i / window] = result.grad_norm;
  }
  flux_model_unlock (r->model);
  return ok;
}

static void
compare_run (Run *r)
{
  const FluxTrial *t = &g_array_index (r->micros, Micro, 0).trial;
  guint n = r->micros->len, steps = (n + r->c.accumulate - 1) / r->c.accumulate;
  g_autofree double *losses = g_new0 (double, n), *norms = g_new0 (double, steps);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxTrainer) trainer = flux_trainer_new (
      r->model, &r->c, t->text_tokens, t->height / 2 * (t->width / 2), &error);

  if (trainer == NULL || !train (r, trainer, losses, norms, &error)) {
    parity_fail (r->p, r->name, &error);
    return;
  }
  compare_series (r, "losses", losses, n);
  compare_series (r, "grad_norms", norms, steps);
  compare_final (r, trainer);
  compare_state (r, trainer);
}

void
parity_train (Parity *p)
{
  g_auto (GStrv) names = parity_names (p, "train");

  /* Inputs of all runs. */
  parity_mark (p, "lora_init.");
  parity_mark (p, "train.noise.");
  for (guint i = 0; names[i] != NULL; i++) {
    g_autofree char *name = NULL;
    g_autoptr (GError) error = NULL;
    Run r = {.p = p};
    if (!g_str_has_suffix (names[i], ".losses"))
      continue;
    name = g_strndup (names[i], strlen (names[i]) - strlen (".losses"));
    r.name = name;
    if (run_read (&r, &error) && r.c.accumulate > 0 && r.micros->len > 0) {
      compare_gradient (&r);
      compare_run (&r);
    } else {
      g_autofree char *all = g_strdup_printf ("%s.", name);
      parity_mark (p, all);
      parity_fail (p, name, &error);
    }
    run_clear (&r);
  }
}
